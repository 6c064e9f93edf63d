"""The leading eigenvalue from a few products, against LAPACK."""

import pytest
import torch

from hessdiag.questions.escape.runs.leading import leading


class Counted:
    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vector):
        self.products += 1
        return self.matrix @ vector


def matrix(n, top, seed):
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n, n).double())[0]
    values = torch.cat([torch.tensor([top, 0.6 * top]).double(), 0.2 * top * torch.rand(n - 2).double() - 0.1])
    return basis @ torch.diag(values) @ basis.T


@pytest.mark.parametrize("seed", range(5))
def test_cold_and_warm_starts_come_within_five_percent(seed):
    first, second = matrix(60, 3.0, seed), matrix(60, 3.0, seed) + 0.05 * matrix(60, 1.0, seed + 50)
    cold = leading(Counted(first), seed=seed)
    assert cold.value == pytest.approx(3.0, rel=0.05)
    operator = Counted(second)
    warm = leading(operator, cold.vector, seed=seed)
    exact = torch.linalg.eigvalsh(second).max().item()
    assert warm.value == pytest.approx(exact, rel=0.03)
    assert warm.value <= exact * (1 + 1e-12)
    assert warm.products == operator.products <= cold.products
    assert warm.vector.norm().item() == pytest.approx(1, rel=1e-9)


def test_the_sign_counts():
    """The largest, not that of the largest size."""
    assert leading(torch.diag(torch.tensor([-9.0, 2.0, 1.0]))).value == pytest.approx(2.0, rel=1e-5)


def test_small_and_empty_matrices():
    assert leading(torch.tensor([[4.0]])).value == 4.0
    assert leading(torch.zeros(3, 3)).value == 0.0
    assert leading(2 * torch.eye(50)).products <= 3


def test_what_is_no_number_is_told_at_once():
    found = leading(torch.full((4, 4), float("nan")))
    assert found.value != found.value
    assert found.products == 1


def test_the_budget_is_kept(monkeypatch):
    monkeypatch.setattr("hessdiag.questions.escape.runs.leading.MOST", 4)
    operator = Counted(torch.diag(torch.linspace(1, 2, 300)))
    assert leading(operator).products == operator.products == 4
