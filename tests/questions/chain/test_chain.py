"""The measured chain against its exact laws, against weights drawn and multiplied here, and at its limits."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from hessdiag import chain
from hessdiag.errors import SpecError
from hessdiag.questions.chain.plateau import count_rmsprop_steps, integrate_flow, plateau
from hessdiag.questions.chain.sample import sample
from hessdiag.questions.common.result import Provenance
from hessdiag.theory.chain import peak
from hessdiag.theory.chain_plateau import flow_time

ROOT3 = math.sqrt(3)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize(("length", "scale"), [(1, 1.0), (2, ROOT3), (3, 2.0), (10, ROOT3), (30, 1.2), (150, 2.5)])
def test_simulation_agrees_with_theory(distribution, length, scale):
    measured = chain(length=length, scale=scale, distribution=distribution, seeds=8000, seed=length)
    assert len(measured.agreement) >= 4
    for row in measured.agreement:
        assert abs(row.z) <= 4, row
    assert measured.checks["largest_z"] == max(abs(row.z) for row in measured.agreement)
    for entry in measured.lengths:
        size = entry.product
        assert abs(size.log_median - size.theory_log_median) <= 4.5 * size.log_median_stderr


def test_the_numbers_of_the_paper_s_chain():
    measured = chain(length=10, scale=1.7320508, seeds=100)
    assert f"{measured.theory_median_abs:.6g}" == "0.0153652"
    scales = measured.critical_scale
    assert (scales.rms, scales.mean_abs, scales.median) == pytest.approx((ROOT3, 2, math.e), rel=1e-10)
    normal = chain(length=10, distribution="normal", seeds=100).critical_scale
    gamma = 0.57721566490153286
    expected = (1, math.sqrt(math.pi / 2), math.sqrt(2 * math.exp(gamma)))
    assert (normal.rms, normal.mean_abs, normal.median) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_every_statistic_is_that_of_the_same_weights_multiplied(distribution):
    length, scale, seeds, seed = 5, 1.4, 999, 7
    measured = chain(length=length, scale=scale, distribution=distribution, seeds=seeds, seed=seed)
    rng = np.random.default_rng(seed)
    draw = rng.uniform if distribution == "uniform" else rng.normal
    ends = (-scale, scale) if distribution == "uniform" else (0, scale)
    w = np.stack([draw(*ends, seeds) for _ in range(length)])
    for entry in measured.lengths:
        part = w[: entry.length]
        v, last = part.prod(0), part[-1]
        quantities = {
            "product": v,
            "gradient": (v - 1) * v / last,
            "hessian_diagonal": (v / last) ** 2,
        }
        if entry.length > 1:
            quantities["hessian_offdiagonal"] = (2 * v - 1) * v / last / part[-2]
        for name, values in quantities.items():
            size, magnitude = getattr(entry, name), np.abs(values)
            expected = (
                np.median(magnitude), magnitude.mean(), np.sqrt((magnitude**2).mean()), *np.quantile(magnitude, (0.05, 0.95))
            )  # fmt: skip
            found = (size.median_abs, size.mean_abs, size.rms, size.q05, size.q95)
            assert found == pytest.approx(expected, rel=1e-2 if name == "gradient" else 2e-2)
            assert found[:3] == pytest.approx(expected[:3], rel=1e-9)
            error = magnitude.std() / math.sqrt(seeds)
            carried = magnitude.sum() ** 2 >= 50.001 * (magnitude**2).sum()
            middle, one, two = np.quantile(np.log(magnitude), [0.5, 0.8413447460685429, 0.9772498680518208])
            expected_carriers = seeds / np.exp(max(one - middle, (two - middle) / 2) ** 2)
            if carried and expected_carriers >= 50.001:
                assert size.mean_abs_stderr == pytest.approx(error, rel=1e-6, abs=1e-12)
            elif not carried or expected_carriers < 49.999:  # a few chains carry the average: its error is not known
                assert size.mean_abs_stderr is None
    v = w.prod(0)
    assert measured.median_abs == pytest.approx(np.median(np.abs(v)), rel=1e-9)
    definite = ((v > peak(5)) & (v < 1)).mean()
    assert measured.inertia.definite.measured == pytest.approx(definite, abs=1e-12)
    assert measured.inertia.one_negative.measured == pytest.approx(((v > 0) & (v < peak(5))).mean(), abs=1e-12)


def test_the_error_of_a_median_is_its_spread_over_seeds():
    runs = [chain(length=3, scale=1.5, seeds=400, seed=seed) for seed in range(30)]
    spread = np.std([run.log_median for run in runs], ddof=1)
    stated = np.mean([run.log_median_stderr for run in runs])
    assert stated == pytest.approx(spread, rel=0.4)


def test_nothing_underflows_or_overflows():
    deep = chain(length=5000, scale=1.0, seeds=200)
    assert deep.median_abs == 0
    assert deep.log_median == pytest.approx(deep.theory_log_median, abs=6 * deep.log_median_stderr)
    assert deep.plateau is None
    huge = chain(length=300, scale=1e300, seeds=50)
    assert huge.rms == math.inf
    assert math.isfinite(huge.gradient.log_median)
    for extreme in (deep, huge, chain(length=3, scale=1e-300, seeds=50)):
        assert all(math.isfinite(row.z) for row in extreme.agreement)
        assert json.loads(extreme.to_json())["result"]
        assert extreme.findings


def test_the_scale_says_which_moment_it_keeps():
    assert chain(scale=2.0, seeds=10).stabilized_order == pytest.approx(1)
    assert chain(scale=5.0, seeds=10).stabilized_order is None
    for scale, words in (
        (None, "keeps the second moment"),
        (2.0, "keeps the mean"),
        (2.62970, "keeps the median of |v| at this length"),
        (math.e, "keeps the median of |v| in long chains"),
        (2.2, "keeps the moment of order 0.581"),
        (5.0, "every moment explodes"),
        (0.9, "every moment vanishes"),
    ):
        typical = next(found for found in chain(scale=scale, seeds=10).findings if "A typical chain" in found.says)
        assert words in typical.because, scale


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"length": 1}, "nothing can vanish"),
        ({"length": 10}, "A typical chain shrinks"),
        ({"length": 50}, "A typical chain vanishes"),
        ({"length": 10, "scale": 2.7}, "keeps its size"),
        ({"length": 10, "scale": 3.5}, "A typical chain explodes"),
    ],
)
def test_the_verdict_names_what_happens(settings, says):
    assert any(says in finding.says for finding in chain(seeds=10, **settings).findings)


def test_the_verdict_names_the_cure_and_the_atypical_mean():
    first, second, *_ = chain(length=10, seeds=1000).findings
    assert "--scale 2.6297 keeps the median" in first.remedy
    assert "16.3 % of the chains reach E|v|, and 5.34 %" in second.says


def test_the_cure_works():
    cured = chain(length=40, scale=chain(length=40, seeds=10).critical_scale.median_at_length, seeds=4000)
    assert cured.theory_median_abs == pytest.approx(1, rel=1e-9)
    assert abs(cured.log_median) <= 4 * cured.log_median_stderr


@pytest.mark.parametrize(("length", "start"), [(3, 0.1), (10, 0.5), (30, 0.7)])
def test_simulated_flow_takes_the_exact_time(length, start):
    end = peak(length)
    assert integrate_flow(length, start, end) == pytest.approx(flow_time(length, start, end), rel=1e-6)


@pytest.mark.parametrize("length", [3, 10, 100, 400])
def test_rmsprop_keeps_its_bound(length):
    found = plateau(length, length * math.log(0.6))
    assert found.rmsprop_steps <= found.theory_rmsprop_steps < 400


def test_rmsprop_is_torch_s():
    torch = pytest.importorskip("torch")
    w = torch.full((8,), 0.6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RMSprop([w], lr=1e-3)
    steps = 0
    while float(w.detach().prod()) < peak(8):
        optimizer.zero_grad()
        ((w.prod() - 1) ** 2 / 2).backward()
        optimizer.step()
        steps += 1
    assert count_rmsprop_steps(8, 0.6, peak(8), epsilon=1e-8) == steps


def test_a_large_epsilon_holds_rmsprop_on_the_plateau():
    found = plateau(100, 100 * math.log(0.6))
    assert found.rmsprop_steps is not None
    assert found.rmsprop_default_steps is None
    measured = chain(length=100, scale=ROOT3, seeds=10)
    said = next(finding for finding in measured.findings if "default epsilon" in finding.says)
    epsilon = float(said.remedy.removeprefix("eps=").split()[0])
    assert epsilon == pytest.approx(measured.plateau.gradient / 100, rel=0.5)
    assert count_rmsprop_steps(100, measured.plateau.start, peak(100), epsilon=epsilon) is not None


def test_the_same_seed_gives_the_same_numbers():
    first, again, other = (replace(chain(seeds=50, seed=seed), provenance=Provenance()) for seed in (1, 1, 2))
    assert first == again
    assert first.median_abs != other.median_abs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"length": 0}, "--length"),
        ({"length": 10**6}, "--length"),
        ({"seeds": 1}, "--seeds"),
        ({"scale": 0.0}, "--scale"),
        ({"scale": math.inf}, "--scale"),
        ({"distribution": "cauchy"}, "unknown distribution"),
    ],
)
def test_refusals(settings, said):
    with pytest.raises(SpecError, match=said):
        chain(**settings)


@pytest.mark.parametrize(("chains", "spread"), [(100, 0.3), (1000, 0.7), (1000, 1.5)])
def test_errors_of_averages_cover_or_are_not_given(chains, spread):
    """Log-normal magnitudes, whose averages are known; 400 samples."""
    rng, hits = np.random.default_rng(chains), {"mean_abs": [], "rms": []}
    for _ in range(400):
        found = sample(rng.normal(0, spread, chains))
        for name, order in (("mean_abs", 1), ("rms", 2)):
            error = getattr(found, f"{name}_stderr")
            if error is not None:
                hits[name].append(abs(getattr(found, name) - math.exp(order * spread**2 / 2)) <= 1.96 * error)
    assert all(np.mean(hit) >= 0.9 for hit in hits.values() if len(hit) > 100)
    assert len(hits["rms"]) < 20 if spread == 1.5 else len(hits["rms"]) > 380


@pytest.mark.parametrize(("length", "level"), [(3, "note"), (7, "warn"), (20, "bad")])
def test_a_chain_that_hardly_shrinks_is_no_warning(length, level):
    measured = chain(length=length, scale=ROOT3, seeds=10)
    said = next(finding for finding in measured.findings if finding.says.startswith("A typical chain"))
    assert said.level == level, measured.gradient.theory_log_median
