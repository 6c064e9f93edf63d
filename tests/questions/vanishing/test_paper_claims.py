"""What Vanishing Curvature claims of its figures, on small instances of the same networks."""

import math
import statistics

import numpy as np
import pytest

from hessdiag import HessianOperator, ProblemRequest, load_problem, vanishing, vanishing_of
from hessdiag.questions.vanishing.effective_width import effective_widths
from hessdiag.theory.convolution import zero_padding_decay


def problem(spec, seed, batch=8, loss="mse"):
    request = ProblemRequest(spec, device="cpu", seed=seed, batch_size=batch, loss=loss, train_mode=True)
    return load_problem(request)


def log_gradients(spec, seeds, **how):
    return np.array(
        [math.log(float(HessianOperator(problem(spec, seed, **how)).gradient().norm())) for seed in range(seeds)]
    )


def per_layer(spec, depth, seeds, **how):
    """Median gradient norm of one layer."""
    found = log_gradients(spec.format(depth=depth), seeds, **how)
    return math.exp(statistics.median(found)) / math.sqrt(depth)


def test_narrow_networks_vanish_and_those_as_wide_as_deep_do_not():
    """Figure 1."""
    narrow = vanishing(depth=[2, 64], width=8, seeds=100, hessian_seeds=30, batch=2).depths
    wide = vanishing(depth=[2, 48], width="same", seeds=6, hessian_seeds=3, batch=2).depths
    for name in ("gradient_norm", "hessian_norm"):
        shallow, deep = (getattr(entry, name).median for entry in narrow)
        assert deep < 0.05 * shallow
        assert deep < 1e-3 * getattr(wide[1], name).median
        assert getattr(wide[1], name).median > getattr(wide[0], name).median


def test_diagonal_blocks_of_a_users_network_vanish_at_the_squared_rate_under_lecun():
    """Figures 4 and 13, in the general engine."""
    measured = vanishing_of(
        lambda depth, seed: problem(f"builtin:mlp(depth={depth}, width=8, activation='linear', init='lecun')", seed),
        depth=[4, 8, 16],
        seeds=16,
    )
    rates = measured.rates
    ratio = rates["hessian_diagonal_blocks"].per_layer / rates["hessian_offdiagonal_blocks"].per_layer
    assert 1.7 < ratio < 2.3
    assert rates["gradient"].per_layer == pytest.approx(-math.log(3) / 2, abs=0.2)
    assert measured.findings[0].level == "bad"


def test_circular_padding_mends_what_zero_padding_breaks_at_7x7():
    """Figure 6, bottom right. The same weights, so that each pair differs by its padding alone."""
    depth, seeds = 32, 12
    spec = f"builtin:fcn(depth={depth}, channels=16, resolution=7, padding='{{}}')"
    zeros, circular = (log_gradients(spec.format(padding), seeds, batch=2) for padding in ("zeros", "circular"))
    gained = circular - zeros
    assert statistics.median(gained) > 0.7 * -math.log(zero_padding_decay(7)) / 2 * depth
    assert min(gained) > 0


NETWORKS = {
    "mlp": ("builtin:mlp(depth={{depth}}, width=16, batchnorm={}, residual={})", 8, 65, {"batch": 32}),
    "fcn": ("builtin:fcn(depth={{depth}}, channels=8, resolution=5, batchnorm={}, residual={})", 8, 65, {}),
    "resnet": (
        "builtin:resnet(depth={{depth}}, channels=2, resolution=8, batchnorm={}, residual={})",
        14,
        101,
        {"batch": 16, "loss": "ce"},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_normalization_alone_or_skips_alone_explode_and_both_hold(name):
    """Figures 17 to 19."""
    spec, shallow, deep, how = NETWORKS[name]
    growth = {
        (normalized, skips): per_layer(spec.format(normalized, skips), deep, 4, **how)
        / per_layer(spec.format(normalized, skips), shallow, 4, **how)
        for normalized in (False, True)
        for skips in (False, True)
    }
    assert growth[False, False] < 1
    assert min(growth[True, False], growth[False, True]) > 5 * growth[True, True]
    assert growth[True, True] < 100 < min(growth[True, False], growth[False, True])


def test_stripped_resnets_vanish_also_when_they_are_wide_or_big():
    """Figure 7."""
    for how in ("", ", wide=True", ", big=True"):
        spec = f"builtin:resnet(depth={{depth}}, channels=2, resolution=8{how})"
        shallow, deep = (per_layer(spec, depth, 4, batch=4, loss="ce") for depth in (14, 101))
        assert deep < 0.01 * shallow


def test_the_path_count_overstates_the_width_of_late_layers():
    """Its k^2 c = 72 stands for about 12 independent channels; effective widths fall along the depth."""
    spec = "builtin:fcn(depth=24, channels=8, in_channels=8, resolution=8, padding='circular', init='he_normal')"
    found = [effective_widths(problem(spec, seed, batch=4)) for seed in range(6)]
    assert {width.path for width in found[0].values()} == {72.0}
    by_layer = np.median([[width.stable_rank for width in widths.values()] for widths in found], axis=0)
    assert by_layer[0] > 200
    assert 8 < np.median(by_layer[12:]) < 20
