"""What a formula refuses, what it says, and the last argument that it takes."""

import math

import numpy as np
import pytest

from hessdiag.errors import SpecError
from hessdiag.theory.chain import diagonal_size, offdiagonal_size, peak
from hessdiag.theory.chain_plateau import blow_up_time, flow_time, flow_time_bound, rmsprop_time_bound
from hessdiag.theory.expectations import expected_trace
from hessdiag.theory.gaussian_nets import median_log_norm2, median_log_norms2, moments, quantile_log_norm2
from hessdiag.theory.product_law import Law
from hessdiag.theory.rates import fourth_moment_growth, growth, rates
from hessdiag.theory.wigner_ols import (
    data_share,
    ols_share_clt,
    ols_share_columns,
    ols_share_gaussian,
    psd_floor_diagonal,
    wigner_share,
)

REFUSED = [
    (lambda: blow_up_time(2, 0.5), "a chain of 2 weights has no plateau", "length=3 or more"),
    (lambda: blow_up_time(5, 0.0), "between 0 and 1, not at 0", "start=0.5"),
    (lambda: blow_up_time(5, 1.0), "between 0 and 1, not at 1", "start=0.5"),
    (lambda: flow_time_bound(5, 0.5, 0.03), "between the first output and 1, not at 0.03", "target=0.5"),
    (lambda: flow_time_bound(5, 0.5, 1.01), "between the first output and 1, not at 1.01", "target=0.5"),
    (lambda: flow_time(5, 0.5, 1.0), "takes forever until the output is 1", "target=0.5"),
    (lambda: rmsprop_time_bound(5, 0.5, 4.01 / 9), "up to the gradient's peak, output (L - 1) / (2L - 1)", "target=0.4"),
    (lambda: offdiagonal_size(Law(1, 1.0)), "the Hessian of one weight has no off-diagonal entry", "length=2"),
    (lambda: Law(-1, 1.0), "a product has no -1 factors", "length=10"),
    (lambda: Law(3, 0.0), "must be positive and finite, not 0", "scale=1.7320508"),
    (lambda: Law(3, math.inf), "must be positive and finite, not inf", "scale=1.7320508"),
    (lambda: Law(3, 1.0, "cauchy"), "unknown distribution 'cauchy': uniform or normal", "distribution='uniform'"),
    (lambda: growth(3, 1.0, 0.0, 0.99), "The kurtosis is 0.99", "kurtosis=3 (Gaussian) or 1.8 (uniform)"),
    (lambda: moments([3], 1.0, 0.99, 0.0, start=(1, 1, 1)), "The kurtosis is 0.99", "kurtosis=3 (Gaussian) or 1.8 (uniform)"),
    (lambda: quantile_log_norm2(1.0, [4], 1.0, 0.0), "q is 1.0, but a quantile's probability", "q=0.5 for the median"),
    (lambda: quantile_log_norm2(0.0, [4], 1.0, 0.0), "q is 0.0, but a quantile's probability", "q=0.5 for the median"),
    (lambda: quantile_log_norm2(1e-10, [4], 1.0, 1.0), "at 1e-10 of live networks is too far out", "1e-9 < q < 1 - 1e-9"),
    (lambda: median_log_norms2(0, 4, 1.0, 0.0), "The depth is 0, but a network has at least 1 layer", None),
    (lambda: median_log_norm2([0.5], 1.0, 0.0), "A layer has width 0.5, but a width is at least 1", None),
    (lambda: median_log_norm2([4], 0.0, 0.0), "A weight variance is 0, but must be above 0", None),
    (lambda: expected_trace([3], 1.0, 0.0), "a list of 2 or more numbers, each at least 1", "[d_0, ..., d_L], input first"),
    (lambda: expected_trace([3, 3, 1], [1.0] * 3, 0.0), "one number, or one per weight matrix (2)", None),
    (lambda: expected_trace([3, 1], 0.0, 0.0), "A weight variance is 0, but must be above 0", None),
    (lambda: wigner_share(0), "d is 0, but a share needs at least 1", "d=1 or more"),
    (lambda: wigner_share(3, -0.1), "is -0.1, but must not be negative", None),
    (lambda: ols_share_gaussian(0, 3), "n is 0, but a share needs at least 1", "n=1 or more"),
    (lambda: ols_share_clt(0, 3), "n is 0, but a share needs at least 1", "n=1 or more"),
    (lambda: ols_share_clt(3, 0), "d is 0, but a share needs at least 1", "d=1 or more"),
    (lambda: ols_share_columns(3, [1.0], [1.0, 1.0]), "mean has shape (1,) and second_moment (2,)", None),
    (lambda: ols_share_columns(3, [2.0], [3.9]), "second moment is below its squared", "second_moment = (X**2).mean(axis=0)"),
    (lambda: data_share(np.ones(3)), "The data have shape (3,)", "X.reshape(n, -1)"),
    (lambda: psd_floor_diagonal([1.0, -0.1]), "The diagonal has a negative entry", None),
]  # fmt: skip


@pytest.mark.parametrize(("call", "what", "hint"), REFUSED)
def test_refusals_say_what_and_what_to_do(call, what, hint):
    with pytest.raises(SpecError) as refused:
        call()
    assert what in refused.value.what
    assert refused.value.hint == hint


def test_the_last_arguments_that_are_taken():
    for length in (3, 5, 20):
        assert 0.2 < rmsprop_time_bound(length, 0.5, peak(length)) < 0.5
        with pytest.raises(SpecError):
            rmsprop_time_bound(length, 0.5, peak(length) * (1 + 1e-9))
        assert flow_time(length, 0.5, 0.5**length) == pytest.approx(0, abs=1e-9)
        assert rmsprop_time_bound(length, 0.5, 0.5**length) == pytest.approx(0, abs=1e-12)
    assert growth(4, 1.0, 1.0, 1.0).rms == pytest.approx(math.log(2))
    assert psd_floor_diagonal([1.0, 0.0]) == 1.0


def test_the_hessian_of_a_chain_of_one_weight_is_one():
    size = diagonal_size(Law(1, 2.0))
    assert tuple(size) == (0.0, 0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("kurtosis", [1.8, 3.0, 6.0])
def test_rates_know_the_kurtosis_and_a_fixed_cotangent(kurtosis):
    setting = (6, 0.2, 0.1, kurtosis)
    found, rate = rates(*setting), growth(*setting)
    assert found["vjp"] == {"rms": rate.rms, "median": rate.median}
    assert found["hessian_diagonal_blocks"]["rms"] == fourth_moment_growth(*setting) / 2
    assert found["gradient"]["rms"] == max(rate.rms, fourth_moment_growth(*setting) / 2)
    assert fourth_moment_growth(6, 0.2, 0.1, 1.8) < fourth_moment_growth(6, 0.2, 0.1, 6.0)
