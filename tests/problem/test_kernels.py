"""What replaces a kernel computes the same."""

import pytest
import torch
from torch.nn import functional

from hessdiag.problem import kernels


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
    with kernels.folded_batch_norm():
        found = network()
    assert (type(found.grad_fn).__name__ == "ConvolutionBackward0") is folds
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def _replaced():
    return functional.conv1d, functional.conv2d, functional.conv3d, functional.batch_norm


def test_kernels_come_back():
    before = _replaced()
    with kernels.folded_batch_norm():
        assert functional.batch_norm is not before[-1]
    assert _replaced() == before
