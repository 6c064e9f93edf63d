"""Sums, multiples, transposes, diagonals, traces, and SciPy: against dense matrices of two problems."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh as scipy_eigsh

import hessdiag
from hessdiag.linalg import LinearCombination, Operator, algebra
from tests import once

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module")
def operators():
    """(H, G, F) with their dense matrices."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    problem = hessdiag.Problem(model, data=[(torch.randn(9, 4).double(), torch.randint(3, (9,)))], loss="ce")
    made = (
        hessdiag.HessianOperator(problem),
        hessdiag.GaussNewtonOperator(problem),
        hessdiag.FisherOperator(problem, empirical=True),
    )
    identity = torch.eye(problem.n_parameters, dtype=torch.float64)
    return [(A, A @ identity) for A in made]


FORMS = {
    "A": lambda A, B, C: A,
    "A.T": lambda A, B, C: A.T,
    "-A": lambda A, B, C: -A,
    "A + B": lambda A, B, C: A + B,
    "A - B": lambda A, B, C: A - B,
    "2 A": lambda A, B, C: 2 * A,
    "A 2": lambda A, B, C: A * 2.0,
    "A / 4": lambda A, B, C: A / 4,
    "numpy A": lambda A, B, C: np.float64(0.3) * A,
    "tensor A": lambda A, B, C: torch.tensor(0.3, dtype=torch.float64) * A,
    "A - 2 (B - C / 3)": lambda A, B, C: A - 2 * (B - C / 3),
    "sum": lambda A, B, C: sum([A, B, C]),
    "A - A": lambda A, B, C: A - A,
    "A + tensor": lambda A, B, C: A + torch.ones(51, 51, dtype=torch.float64),
    "tensor - A": lambda A, B, C: torch.ones(51, 51, dtype=torch.float64) - A,
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_those_of_the_dense_matrices(operators, form):
    found = FORMS[form](*(A for A, _ in operators))
    expected = FORMS[form](*(dense for _, dense in operators))
    V = torch.randn(51, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(found @ V, expected @ V, **EXACT)
    torch.testing.assert_close(found @ V[:, 0], expected @ V[:, 0], **EXACT)
    torch.testing.assert_close(V.T @ found, V.T @ expected, **EXACT)
    torch.testing.assert_close(V[:, 0] @ found, V[:, 0] @ expected, **EXACT)
    torch.testing.assert_close(found.diagonal(), expected.diagonal(), **EXACT)
    assert found.trace() == pytest.approx(float(expected.trace()), abs=1e-9)
    assert (found.shape, found.dtype, found.device) == ((51, 51), torch.float64, torch.device("cpu"))
    on_arrays = found.to_scipy()
    assert (on_arrays.shape, on_arrays.dtype) == ((51, 51), np.float64)
    np.testing.assert_allclose(on_arrays @ V.numpy(), (expected @ V).numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(on_arrays.T @ V.numpy()[::1, 0], (expected @ V[:, 0]).numpy(), rtol=1e-9, atol=1e-9)


def test_scipy_solves_what_this_library_solves(operators):
    (H, dense), (G, other), _ = operators
    found = scipy_eigsh((H - G).to_scipy(), k=2, which="LA", tol=1e-12, return_eigenvectors=False)
    expected = hessdiag.linalg.eigsh(H - G, lowest=0, highest=2, tol=1e-10).values
    np.testing.assert_allclose(np.sort(found), expected.numpy(), rtol=1e-9)
    torch.testing.assert_close(expected, torch.linalg.eigvalsh(dense - other)[-2:], **EXACT)


def test_reversed_arrays_reach_the_products_in_their_order(operators):
    H, dense = operators[0]
    reverse = np.arange(51.0)[::-1]
    np.testing.assert_allclose(H.to_scipy() @ reverse, dense.numpy() @ reverse, rtol=1e-9)


def test_estimates_are_labelled_and_near(operators):
    H, dense = operators[0]
    trace, diagonal = H.trace(20, seed=0, sketch=4), H.diagonal(20, seed=0)
    assert trace.products == diagonal.products == 20
    assert trace.stderr > 0
    assert abs(trace.value - float(dense.trace())) < 4 * trace.stderr
    assert float(((diagonal.values - dense.diagonal()).abs() < 4 * diagonal.stderr).double().mean()) > 0.9


@pytest.mark.parametrize("name", ["trace", "diagonal"])
@pytest.mark.parametrize(
    ("products", "sketch", "says"),
    [(0, 0, "products must be at least 1"), (1, 0, "2 products or more"), (9, 4, "10 products"), (9, -1, "at least 0")],
)
def test_estimates_spend_no_more_products_than_they_may(operators, name, products, sketch, says):
    with pytest.raises(ValueError, match=says):
        getattr(operators[0][0], name)(products, sketch=sketch)


def test_sums_of_sums_are_one_sum(operators):
    (H, _), (G, _), _ = operators
    terms = (2 * (H - G) - (G / 2 - H)).terms
    assert [weight for weight, _ in terms] == [2.0, -2.0, -0.5, 1.0]
    assert [part for _, part in terms] == [H, G, G, H]


def test_an_exact_diagonal_of_many_rows_has_to_be_asked_for(monkeypatch, operators):
    monkeypatch.setattr(algebra, "EXACT_UP_TO", 50)
    H, dense = operators[0]
    for ask in (H.trace, (2 * H).diagonal):
        with pytest.raises(ValueError, match=r"of 51 rows takes as many products.\n  try: .*\(products=100\)"):
            ask()
    assert H.trace(products=51).stderr == 0
    free = LinearCombination(((2.0, dense), (1.0, dense)))
    assert free.trace() == pytest.approx(3 * float(dense.trace()), abs=1e-9)


def test_terms_of_several_dtypes():
    single, double = torch.eye(3), torch.ones(3, 3, dtype=torch.float64)
    found = LinearCombination(((1.0, single), (1.0, double)))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found @ torch.ones(3), torch.full((3,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(found.diagonal(), torch.full((3,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda H: H + torch.eye(3), ValueError, r"shapes \(3, 3\), \(51, 51\) have no sum"),
        (lambda H: H + torch.ones(51, 3), ValueError, "have no sum"),
        (lambda H: LinearCombination(()), ValueError, "no operators"),
        (lambda H: LinearCombination(((1.0, [1]),)), TypeError, "no operator"),
        (lambda H: H + torch.eye(51, dtype=torch.int64), TypeError, r"torch.int64 .*\n  try: .double\(\)"),
        (lambda H: H - torch.eye(51, dtype=torch.complex128), TypeError, "torch.complex128"),
        (lambda H: H * H, TypeError, "unsupported operand"),
        (lambda H: H + 1, TypeError, "unsupported operand"),
        (lambda H: H / "2", TypeError, "unsupported operand"),
        (lambda H: H + torch.eye(51, device="meta"), ValueError, "on cpu and meta have no sum"),
    ],
)
def test_what_makes_no_sense_is_refused(operators, make, kind, says):
    with pytest.raises(kind, match=says):
        make(operators[0][0])


def test_an_operator_of_ones_own_needs_four_names():
    class Shift(Operator):
        shape, dtype, device = (4, 4), torch.float32, torch.device("cpu")

        def __matmul__(self, vectors):
            return vectors.flip(0)

    A = Shift()
    assert A.diagonal().tolist() == [0.0, 0.0, 0.0, 0.0]
    assert (A + A).trace() == 0.0
    assert hessdiag.linalg.eigsh(3 * A, lowest=1, highest=1).values.tolist() == pytest.approx([-3.0, 3.0])


def test_what_cancels_is_zero_to_rounding_and_not_asymmetric(operators):
    H, dense = operators[0]
    noise = H - 0.3 * H - 0.7 * H
    assert (noise @ torch.ones(51)).any()
    found = hessdiag.linalg.eigsh(noise, lowest=1, highest=1)
    assert found.values.abs().max() < found.rounding < 1e-12 * float(dense.norm())
    assert found.converged.all()
    small, expected = (hessdiag.linalg.eigsh(A, lowest=1, highest=1) for A in (noise + 1e-6 * H, 1e-6 * H))
    torch.testing.assert_close(small.values, expected.values, rtol=1e-8, atol=1e-15)
    assert 1e4 * expected.rounding < small.rounding < 1e-6 * float(small.values[-1])


def test_nan_in_any_term_is_refused(operators):
    H, dense = operators[0]
    with pytest.raises(ValueError, match="NaN or infinite"):
        hessdiag.linalg.eigsh(H + torch.nan * torch.eye(51, dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN or infinite"):
        hessdiag.linalg.trace(torch.inf * dense, 51)


def test_products_that_turn_out_to_be_differences_are_as_imprecise_as_these():
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 1).double()
    x, y = torch.randn(60, 40).double(), torch.randn(60, 1).double()
    problem = hessdiag.Problem(
        model,
        data=[(x, y)],
        loss=lambda output, target: (once.Sine.apply(output) - target).square().mean(),
    )
    H = hessdiag.HessianOperator(problem)
    found = hessdiag.linalg.eigsh(2 * H, lowest=1, highest=1)
    assert "differences" in H.engine
    largest = float(found.values.abs().max())
    assert found.rounding == pytest.approx(32 * H.precision * largest, rel=0.5)  # it is measured anew with each run
    assert found.rounding > 1e3 * 32 * torch.finfo(torch.float64).eps * largest


def test_asymmetry_is_seen_in_a_sum(operators):
    H, _ = operators[0]
    skew = torch.zeros(51, 51, dtype=torch.float64)
    skew[0, 1], skew[1, 0] = 1.0, -1.0
    with pytest.raises(ValueError, match="not symmetric"):
        hessdiag.linalg.eigsh(H + skew)
