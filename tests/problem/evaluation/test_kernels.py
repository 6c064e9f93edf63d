"""What replaces a kernel computes the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hessdiag.problem.evaluation import batch_norm, kernels
from hessdiag.problem.problem import Problem


def _unchanged(z):
    return z


def _watched(z):
    z.retain_grad()
    return z


@pytest.mark.parametrize(
    ("between", "folds"), [(_unchanged, True), (_watched, False), (torch.Tensor.mul_, False), (torch.clone, False)]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_becomes_part_of_the_convolution_just_before_it(between, folds, bias, affine):
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(4, 4, 5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    w.requires_grad_()
    b, mean, weight, shift = torch.randn(4, 4, generator=generator, dtype=torch.float64).unbind()
    variance = torch.rand(4, generator=generator, dtype=torch.float64) + 0.5

    def network():
        z = functional.conv2d(x, w, b if bias else None, padding=1)
        z = z.mul_(3.0) if between is torch.Tensor.mul_ else between(z)
        return functional.batch_norm(z, mean, variance, *((weight, shift) if affine else ()))

    expected = network()
    with batch_norm.plain_batch_norm(fold=True):
        found = network()
    assert (type(found.grad_fn).__name__ == "ConvolutionBackward0") is folds
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_problems_fold_where_value_and_gradient_stay(dtype):
    torch.manual_seed(0)
    convolution, norm = nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)
    model = nn.Sequential(convolution, norm, nn.Tanh(), nn.Conv1d(3, 2, 1)).to(dtype)
    x = torch.randn(4, 2, 6, dtype=dtype)
    with Problem(model, data=[(x, torch.randn(4, 2, 4, dtype=dtype))], loss="mse").evaluation():
        assert type(norm(convolution(x)).grad_fn).__name__ == "ConvolutionBackward0"


def test_batch_norm_refuses_other_channels():
    mean, variance = torch.zeros(1), torch.ones(1)
    with batch_norm.plain_batch_norm(fold=False), pytest.raises(RuntimeError, match="should contain 3 elements"):
        functional.batch_norm(torch.zeros(2, 3, 4), mean, variance)


def _replaced():
    return functional.conv1d, functional.conv2d, functional.conv3d, functional.batch_norm


def test_kernels_come_back():
    before = _replaced()
    with batch_norm.plain_batch_norm(fold=True):
        assert functional.batch_norm is not before[-1]
    assert _replaced() == before


def test_only_second_derivatives_of_the_problem_itself_are_folded():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 2)).double()
    problem = Problem(model, data=[(torch.randn(4, 2, 3).double(), torch.ones(4, 2).double())], loss="mse")

    def folds(problem):
        seen = []
        handle = model[2].register_forward_pre_hook(lambda module, args: seen.append(type(args[0].grad_fn).__name__))
        problem.evaluate(problem.data[0])
        handle.remove()
        return seen[-1] == "ConvolutionBackward0"

    assert folds(problem)
    assert not folds(problem.as_written())


@pytest.mark.parametrize("padding", [None, 2, -1])
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("form", ["rows", "offsets", "last offset", "empty bags"])
@pytest.mark.parametrize("weighted", [True, False])
def test_bags_of_embeddings_are_sums_that_can_be_differentiated_twice(form, mode, padding, weighted):
    if weighted and mode == "mean":
        pytest.skip("torch weighs sums only")
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(7, (12,), generator=generator)
    ids[3] = 2
    factors = torch.rand(12, generator=generator, dtype=torch.float64)
    offsets = {"offsets": [0, 5, 6], "last offset": [0, 5, 9, 12], "empty bags": [0, 0, 4, 4]}.get(form)
    arguments = {"mode": mode, "padding_idx": padding, "include_last_offset": form == "last offset"}
    if offsets is None:
        ids, factors = ids.reshape(4, 3), factors.reshape(4, 3)
    else:
        arguments["offsets"] = torch.tensor(offsets)
    if weighted:
        arguments["per_sample_weights"] = factors

    def value(weight):
        return functional.embedding_bag(ids, weight, **arguments)

    expected = value(table)
    (slope,) = torch.autograd.grad(expected.pow(3).sum(), table)
    with kernels.plain_embedding_bag():
        torch.testing.assert_close(value(table), expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(
            torch.autograd.grad(value(table).pow(3).sum(), table)[0], slope, rtol=1e-12, atol=1e-13
        )
        H = torch.autograd.functional.hessian(lambda weight: value(weight).pow(3).sum(), table.detach())
    step = torch.zeros_like(table).detach()
    step[2, 1] = 1e-4
    ends = []
    for moved in (table.detach() + step, table.detach() - step):
        moved.requires_grad_()
        ends.append(torch.autograd.grad(value(moved).pow(3).sum(), moved)[0])
    torch.testing.assert_close(H[2, 1], (ends[0] - ends[1]) / 2e-4, rtol=1e-6, atol=1e-6)
