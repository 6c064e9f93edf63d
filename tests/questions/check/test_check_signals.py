"""Numbers of one tensor and of the units of one layer, where naive formulas lose them, against direct computations."""

import math
from dataclasses import astuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from hessdiag.questions.check.watching import functions
from hessdiag.questions.check.watching.rows import copies
from hessdiag.questions.check.watching.signals import Signal, even_part, laid_out, measured, root_mean_square
from hessdiag.questions.check.watching.units import dead_fraction, flat_units, saturated_fraction

F64 = torch.float64


def read(tensor, samples=None, **options):
    return Signal(*measured(laid_out(tensor, samples or len(tensor), **options)).tolist())


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_size_and_variation_do_not_depend_on_scale(scale):
    x = torch.randn(10, 7, dtype=F64, generator=torch.Generator().manual_seed(0))
    exact = 1e-2 if scale == 1e-320 else 1e-9  # of which a double has three digits
    found, plain = read(x * scale), read(x)
    assert found.rms == pytest.approx(scale * float(x.square().mean().sqrt()), rel=exact)
    assert found.mean == pytest.approx(scale * float(x.mean()), rel=exact)
    assert found.largest == pytest.approx(scale * float(x.abs().max()), rel=exact)
    assert found.variation == pytest.approx(plain.variation, rel=exact)
    assert found.cosine == pytest.approx(plain.cosine, rel=exact)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e-30), (torch.float32, 1e30), (torch.bfloat16, 1e-30), (torch.float16, 1e-7)]
)
def test_narrow_numbers_are_squared_in_wide_ones(dtype, scale):
    x = (torch.randn(10, 7, dtype=F64, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)
    assert read(x).rms == pytest.approx(float(x.double().square().mean().sqrt()), rel=1e-9, abs=0)
    assert float(root_mean_square(x)) == pytest.approx(float(x.double().square().mean().sqrt()), rel=1e-9, abs=0)


def test_a_small_spread_beside_a_large_mean_is_measured():
    noise = torch.randn(20, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = 3.0 + 1e-9 * noise
    expected = 1e-9 * float(noise.var(0).mean().sqrt()) / 3.0
    assert read(x).variation == pytest.approx(expected, rel=1e-6, abs=0)


def test_equal_samples_do_not_vary_at_all():
    row = torch.randn(1, 33, generator=torch.Generator().manual_seed(0))
    assert read(row.repeat(7, 1)).variation == 0.0
    assert read(torch.zeros(7, 3)).variation == 0.0
    assert math.isnan(read(torch.zeros(7, 3)).cosine)


def test_independent_samples_have_nothing_in_common():
    x = torch.randn(4000, 10, dtype=F64, generator=torch.Generator().manual_seed(0))
    assert read(x).variation == pytest.approx(1.0, abs=0.01)
    assert read(x).cosine == pytest.approx(0.0, abs=0.01)


def test_one_sample_has_no_variation():
    found = read(torch.randn(1, 5))
    assert math.isnan(found.variation)
    assert math.isnan(found.cosine)


def test_what_is_not_finite_is_no_error():
    assert read(torch.tensor([[1.0, math.inf], [2.0, 3.0]])).rms == math.inf
    assert math.isnan(read(torch.tensor([[1.0, math.nan], [2.0, 3.0]])).rms)


def test_samples_are_found_first_second_folded_or_not_at_all():
    x = torch.randn(6, 4, 5, dtype=F64, generator=torch.Generator().manual_seed(0))  # (samples, time, units)
    expected = astuple(read(x))
    assert astuple(read(x.transpose(0, 1), samples=6)) == pytest.approx(expected, rel=1e-12)
    assert astuple(read(x.flatten(0, 1), samples=6)) == pytest.approx(expected, rel=1e-12)
    assert laid_out(x, 6).shape == (6, 4, 5)
    assert laid_out(x, 6, unit=1).shape == (6, 5, 4)
    assert laid_out(x, 7).shape == (1, 24, 5)
    assert laid_out(torch.zeros(6), 6).shape == (6, 1, 1)
    assert laid_out(torch.zeros(6, 2).long(), 6) is None


def test_large_tensors_are_read_by_an_even_part():
    generator = torch.Generator().manual_seed(0)
    gains = torch.linspace(0.5, 2, 16)[None, :, None, None]  # by channel
    ramp = torch.linspace(0.2, 1, 64)  # along each row
    x = torch.randn(8, 16, 64, 64, generator=generator) * gains * ramp
    laid = laid_out(x, 8, unit=1, most=1 << 14)
    assert laid.shape[::2] == (8, 16)
    assert laid.numel() < 1 << 15
    assert float(laid.square().mean().sqrt()) == pytest.approx(float(x.square().mean().sqrt()), rel=0.03)
    assert len(even_part(x, 1000)) < 2000
    assert float(even_part(x, 1 << 14).square().mean().sqrt()) == pytest.approx(
        float(x.square().mean().sqrt()), rel=0.03
    )
    assert torch.equal(even_part(x[0, 0]), x[0, 0].flatten())


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e25])
def test_size_of_many_entries(scale):
    x = torch.randn(100_001, generator=torch.Generator().manual_seed(0)) * scale
    assert float(root_mean_square(x)) == pytest.approx(float(x.double().square().mean().sqrt()), rel=1e-6, abs=0)
    assert float(root_mean_square(x.double())) == pytest.approx(
        float(x.double().square().mean().sqrt()), rel=1e-9, abs=0
    )


def test_size_of_a_sparse_gradient_counts_its_zeros():
    table = nn.Embedding(50, 4, sparse=True)
    table(torch.tensor([3, 3, 7])).square().sum().backward()
    dense = table.weight.grad.to_dense()
    assert float(root_mean_square(table.weight.grad)) == pytest.approx(float(dense.square().mean().sqrt()), rel=1e-6)


@pytest.mark.parametrize("name", [name for name, low in functions.DEAD_BELOW.items() if low > -math.inf])
def test_a_smooth_nonlinearity_is_flat_where_its_slope_is_below_a_hundredth(name):
    x = torch.linspace(-30, 8, 380_001, dtype=F64).requires_grad_()
    (slope,) = torch.autograd.grad(getattr(F, name)(x).sum(), x)
    steep = slope.abs() > 0.01 * slope.abs().max()
    first = float(x[steep].min().detach())
    assert functions.DEAD_BELOW[name] == pytest.approx(first, abs=0.01)


@pytest.mark.parametrize("name", functions.LINEAR_WITHIN)
def test_a_bounded_nonlinearity_is_saturated_where_its_slope_is_below_a_hundredth(name):
    x = torch.linspace(-12, 12, 240_001, dtype=F64).requires_grad_()
    y = torch.erf(x) if name == "erf" else getattr(F, name)(x) if name == "softsign" else getattr(torch, name)(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    expected = float((slope < 0.01 * slope.max()).double().mean())
    assert float(saturated_fraction(name, y.detach()[None, None], None)) == pytest.approx(expected, abs=1e-4)


def test_dead_units_are_zero_or_flat_for_all():
    x = torch.tensor([[[-5.0, -1.0, 0.5, -8.0]], [[-4.0, 2.0, 0.1, -9.0]]], dtype=F64)
    assert float(dead_fraction("relu", x.relu(), None)) == 0.5
    assert float(dead_fraction("gelu", F.gelu(x), flat_units("gelu", x))) == 0.5
    assert float(dead_fraction("silu", F.silu(x), flat_units("silu", x))) == 0.25
    assert dead_fraction("tanh", x.tanh(), None) is None


def test_saturation_of_functions_with_bounds_and_of_distributions():
    x = torch.tensor([[[-2.0, 0.5, 9.0, 3.0]]], dtype=F64)
    assert float(saturated_fraction("hardtanh", F.hardtanh(x), (-1.0, 1.0))) == 0.75
    assert float(saturated_fraction("relu6", F.relu6(x), (0.0, 6.0))) == 0.25
    sure = torch.tensor([[[50.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]).softmax(-1).double()
    assert float(saturated_fraction("softmax", sure, None)) == 0.5
    assert saturated_fraction("relu", x.relu(), None) is None


def fraction(module, turned=False):
    matrices = [module.weight] if hasattr(module, "weight") else []
    if isinstance(module, nn.MultiheadAttention):
        matrices = [module.in_proj_weight]
    biases = [module.bias] if getattr(module, "bias", None) is not None and not isinstance(module, nn.RNNBase) else []
    return copies(module, matrices or [module.weight_ih_l0], biases, turned)


def test_units_with_equal_weights_and_bias_are_copies():
    layer = nn.Linear(20, 8)
    assert fraction(layer) == 0.0
    with torch.no_grad():
        layer.weight[3] = layer.weight[5]
        assert fraction(layer) == 0.0  # the biases differ
        layer.bias[3] = layer.bias[5]
        assert fraction(layer) == 1 / 8
        layer.weight[3, -1] += 1e-6
        assert fraction(layer) == 0.0
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    layer.weight.data[0] = -0.0  # a zero is a zero
    assert fraction(layer) == 7 / 8


def test_copies_of_a_turned_matrix_are_columns():
    layer = nn.Linear(6, 4, bias=False)
    layer.weight.data[:, 1] = layer.weight.data[:, 0]
    assert copies(layer, [layer.weight], [], turned=True) == 1 / 6
    assert copies(layer, [layer.weight], [], turned=False) == 0.0


def test_filters_of_different_inputs_are_no_copies():
    same = nn.Conv2d(4, 8, 3)
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    grouped = nn.ConvTranspose2d(4, 6, 3, groups=2)
    for layer in (same, depthwise, grouped):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
    assert fraction(same) == 7 / 8
    assert fraction(depthwise) == 0.0
    assert fraction(grouped) == 4 / 6
    turned = nn.ConvTranspose2d(4, 6, 3)
    turned.weight.data[:, 2] = turned.weight.data[:, 4]
    turned.bias.data[2] = turned.bias.data[4]
    assert fraction(turned) == 1 / 6


def test_recurrent_units_are_copies_if_all_their_gates_are():
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        cell = kind(3, 5)
        assert fraction(cell) == 0.0
        for parameter in cell.parameters():
            nn.init.constant_(parameter, 0.1)
        assert fraction(cell) == 4 / 5
    attention = nn.MultiheadAttention(4, 2)
    assert fraction(attention) == 0.0
    nn.init.constant_(attention.in_proj_weight, 0.1)
    assert copies(attention, [attention.in_proj_weight], [attention.in_proj_bias], False) == pytest.approx(9 / 12)


def test_activations_are_known_by_what_they_do():
    assert functions.activation("clamp", [None], {"min": 0}) == ("relu", None)
    assert functions.activation("clamp", [None, 0.0, 6.0], {}) == ("relu6", (0.0, 6.0))
    assert functions.activation("clamp", [None, -1.0, 1.0], {}) == ("hardtanh", (-1.0, 1.0))
    assert functions.activation("clamp", [None], {"min": 1e-8}) == (None, None)
    assert functions.activation("hardtanh", [None, -2.0], {"max_val": 2.0}) == ("hardtanh", (-2.0, 2.0))
    assert functions.activation("linear", [None, None], {}) == (None, None)
