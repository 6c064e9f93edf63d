"""What an interrupt leaves of a diagonal share: an honest estimate of what was done, and the way on from there."""

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.problem import Problem
from hessdiag.questions.diag_share import measure as module
from hessdiag.questions.diag_share.measure import diag_share
from hessdiag.questions.diag_share.view import view
from hessdiag.statistics import sampling
from tests.interrupts import ends_after
from tests.questions.diag_share.share_problems import by_products, few_heavy_neurons, narrow, pixels, wide
from tests.reference import brute_force_hessian, numbers


def test_interrupt_keeps_an_honest_estimate(monkeypatch):
    problem = pixels()
    by_products(monkeypatch)
    truth = diag_share(problem).diag_share

    def stop_after_a_while(done, total, what):
        if done >= 128:
            raise KeyboardInterrupt

    found = diag_share(problem, progress=stop_after_a_while)
    assert found.status == "interrupted"
    assert found.method == "rows"
    assert 128 <= found.rows < problem.n_parameters
    assert found.diag_share_interval[0] < truth < found.diag_share_interval[1]


def _after(rows):
    def progress(done, total, what):
        if done >= rows:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("part", [0.1, 0.3, 0.6])
def test_intervals_after_an_interrupt_cover(part):
    """Of the whole share and of each layer's, over 300 orders, with the rows of the true Hessian."""
    problem = pixels()
    H = brute_force_hessian(problem).abs().numpy()
    layers = problem.layer_slices
    sums = np.stack([H[:, layer.start : layer.stop].sum(1) for layer in layers], axis=1)
    truth = [np.trace(H) / H.sum()] + [
        np.trace(block) / block.sum()
        for block in (H[layer.start : layer.stop, layer.start : layer.stop] for layer in layers)
    ]
    groups, count, inside, asked = module.rows_of.groups(problem), int(part * len(H)), np.zeros(4), np.zeros(4)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        draw = sampling.Draw.of(np.ones(len(H)), rng)
        order = draw.order(groups, sampling.BEGINNING)[:count]
        rows = module.Rows(order, H.diagonal()[order], sums[order])
        found = module.summarize(problem, rows, groups, 0.0, False, draw)
        intervals = [found.diag_share.interval, *(layer.diag_share_interval for layer in found.layers)]
        for index, interval in enumerate(intervals):
            if interval is not None:
                asked[index] += 1
                inside[index] += interval[0] - 1e-12 <= truth[index] <= interval[1] + 1e-12
    assert asked[0] == 300
    assert (inside[0] / asked[0]) >= 0.91  # 92 % less what 300 orders may be off
    assert inside[1:].sum() / asked[1:].sum() >= 0.91


def test_what_an_interrupt_left_out_is_not_measured(monkeypatch):
    """Twelve layers, and a keyboard that stops after one pass of four rows: no share, no dead layer, no NaN."""
    by_products(monkeypatch)
    torch.manual_seed(0)
    blocks = [layer for _ in range(11) for layer in (nn.Linear(4, 4), nn.Tanh())]
    problem = Problem(
        nn.Sequential(*blocks, nn.Linear(4, 2)).double(),
        data=[(torch.randn(8, 4).double(), torch.randn(8, 2).double())],
        loss="mse",
    )
    monkeypatch.setattr(module.HessianOperator, "chunk", 4, raising=False)
    found = diag_share(problem, rows="all", progress=_after(4))
    assert (found.status, found.rows, found.diag_share, found.diag_share_interval) == ("interrupted", 4, None, None)
    assert found.layer_block_matrix is None
    assert [layer.diag_share is None for layer in found.layers] == [False] * 2 + [True] * 10
    assert found.abs_sum is None
    assert found.zero_rows is None
    first = next(finding for finding in found.findings if "hvp" not in finding.because)
    assert "ended before" in first.says
    assert "no curvature" not in " ".join(finding.says for finding in found.findings)
    shown = view(found)
    assert shown.headline[0] == "not measured"
    assert str(shown).count("not measured") >= 11
    assert "NaN" not in str(shown)
    later = diag_share(problem, rows="all", progress=_after(120))
    truth = diag_share(problem, rows="all")
    assert later.diag_share_interval[0] < truth.diag_share < later.diag_share_interval[1]
    inside = [
        mine.diag_share_interval[0] <= exact.diag_share <= mine.diag_share_interval[1]
        for mine, exact in zip(later.layers, truth.layers, strict=True)
    ]
    assert sum(inside) >= 10


def test_an_interrupt_after_the_linear_layers_leaves_an_estimate(monkeypatch):
    """Linear layers in neuron space, convolutions by products: some hundred of their 500 rows, over 40 orders."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 5))
    problem = Problem(model.double(), data=[(torch.randn(12, 1, 8, 8).double(), torch.arange(12) % 5)], loss="ce")
    truth = diag_share(problem)
    assert "neuron space" in truth.engine
    monkeypatch.setattr(module.HessianOperator, "chunk", 20, raising=False)
    inside = layers = 0
    for seed in range(40):
        found = diag_share(problem, seed=seed, progress=ends_after(9))
        assert (found.status, found.zero_rows) == ("interrupted", None)
        assert 645 + 100 < found.rows < 645 + 200
        inside += found.diag_share_interval[0] <= truth.diag_share <= found.diag_share_interval[1]
        layers += found.layers[1].diag_share_interval[0] <= truth.layers[1].diag_share
        layers -= truth.layers[1].diag_share > found.layers[1].diag_share_interval[1]
        assert found.layers[2].diag_share == pytest.approx(truth.layers[2].diag_share, rel=1e-10)
        np.testing.assert_allclose(found.layer_block_matrix, np.transpose(found.layer_block_matrix), rtol=1e-12)
    assert inside >= 34
    assert layers >= 34


def test_rows_of_zeros_so_far_make_no_dead_layer(monkeypatch):
    """A layer with one live row in a hundred: what was computed of it vanishes, what was not may not."""
    diagonal = torch.zeros(400).double()
    diagonal[:200] = 1.0
    diagonal[399] = 1.0

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(200, 1, bias=False), nn.Linear(200, 1, bias=False)

    problem = Problem(
        Two().double(),
        data=[torch.zeros(1)],
        objective=lambda m, _: 0.5 * (diagonal * torch.cat([m.first.weight[0], m.second.weight[0]]) ** 2).sum(),
    )
    by_products(monkeypatch)
    monkeypatch.setattr(module.HessianOperator, "chunk", 16, raising=False)
    found = diag_share(problem, rows="all", progress=_after(40), seed=1)
    assert found.layers[1].rows >= 8
    assert found.layers[1].diag_share is None
    assert not any("no curvature" in finding.says for finding in found.findings)
    assert not found.layers[1].diag_share_interval


@pytest.mark.parametrize(("point", "close"), [(0.6, 0.25), (0.96, 0.05)])
def test_intervals_of_neurons_that_are_done_cover(point, close, monkeypatch):
    """An exact run in neuron space that ends early, over 25 orders; near its end it is near the truth."""
    monkeypatch.setattr("hessdiag.curvature.neuron_space.TANGENT_NUMBERS", 8_000)
    problem = wide()
    calls = []
    truth = diag_share(problem, progress=lambda done, total, what: calls.append(done))
    inside, layers, known, apart = 0, 0, 0, []
    for seed in range(25):
        found = diag_share(problem, seed=seed, progress=ends_after(min(round(point * len(calls)), len(calls) - 2)))
        assert (found.status, found.method, found.trace) == ("interrupted", "rows", None)
        low, high = found.diag_share_interval
        inside += low <= truth.diag_share <= high
        apart.append(abs(found.diag_share / truth.diag_share - 1))
        for mine, exact in zip(found.layers, truth.layers, strict=True):
            if mine.diag_share_interval is not None:
                known += 1
                layers += mine.diag_share_interval[0] <= exact.diag_share <= mine.diag_share_interval[1]
            elif mine.diag_share is not None:  # all of its neurons are done
                assert mine.diag_share == pytest.approx(exact.diag_share, rel=1e-10)
    assert inside >= 21  # 95 % less what 25 orders may be off; many more were measured: docs/performance.md
    assert layers >= 0.88 * known
    assert np.median(apart) < close / 2
    assert max(apart) < 3 * close


@pytest.mark.parametrize(("point", "widest"), [(0.45, 0.5), (0.6, 0.0)])
def test_heavy_neurons_come_first(point, widest, monkeypatch):
    """Where a few of 30 neurons hold nearly all, what is left holds little: shares are narrow, then known."""
    monkeypatch.setattr("hessdiag.curvature.neuron_space.TANGENT_NUMBERS", 20_000)
    problem, calls = few_heavy_neurons(), []
    truth = diag_share(problem, progress=lambda done, total, what: calls.append(done))
    widths, inside = [], 0
    for seed in range(20):
        found = diag_share(problem, seed=seed, progress=ends_after(round(point * len(calls))))
        assert (found.status, found.method) == ("interrupted", "rows")
        if found.diag_share is None:
            continue
        interval = found.diag_share_interval or (found.diag_share, found.diag_share)
        inside += interval[0] - 1e-9 <= truth.diag_share <= interval[1] + 1e-9
        widths.append((interval[1] - interval[0]) / truth.diag_share)
    assert len(widths) >= 15
    assert inside >= len(widths) - 3
    assert np.median(widths) <= widest


def test_layers_that_an_interrupt_came_before_are_not_measured():
    problem = narrow()
    found = diag_share(problem, progress=ends_after(8))
    measured = [layer.diag_share is not None for layer in found.layers]
    assert found.diag_share is None
    assert 0 < sum(measured) < 12
    truth = diag_share(problem)
    for mine, exact in zip(found.layers, truth.layers, strict=True):
        assert mine.diag_share is None or exact.diag_share / 3 < mine.diag_share < 3 * exact.diag_share
    unmeasured = [layer.name for layer in found.layers if layer.diag_share is None]
    assert not any(f"in {name}" in finding.because for finding in found.findings for name in unmeasured)
    assert "not measured" in str(view(found))


@pytest.mark.parametrize("rows", [None, 40])
def test_an_interrupt_before_the_first_row_gives_a_valid_document(rows):
    found = diag_share(wide(), rows=rows, progress=ends_after(0))
    assert (found.status, found.rows, found.diag_share) == ("interrupted", 0, None)
    assert view(found).headline[0] == "not measured"


def _products_only(patch):
    patch.setattr(module.rows_of, "neuron_space", lambda operator: (None, "told so by a test"))


RESUMED = {"neurons": (None, wide), "rows by products": ("all", wide), "a sample": (200, pixels)}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_share_is_that_of_a_run_without_interrupts(name, tmp_path, monkeypatch):
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_EVERY", -1.0)
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_SHARE", 1e9)
    monkeypatch.setattr("hessdiag.curvature.neuron_space.TANGENT_NUMBERS", 20_000)
    rows, make = RESUMED[name]
    if name == "rows by products":
        _products_only(monkeypatch)
    monkeypatch.setattr("hessdiag.machine.memory.LARGEST_CHUNK", 16)
    options = {"rows": rows, "seed": 5}
    whole, calls = diag_share(make(), **options), 0
    for _ in range(3):
        ended = diag_share(make(), **options, resume=tmp_path, progress=ends_after(4))
        assert ended.status == "interrupted"
        assert ended.resumed_pieces >= calls
        calls = ended.resumed_pieces + 2  # one unit at most is lost
    monkeypatch.setattr("hessdiag.machine.memory.LARGEST_CHUNK", 8)  # less memory is free now
    resumed = diag_share(make(), **options, resume=tmp_path)
    assert resumed.resumed_pieces >= calls
    assert numbers(resumed) == numbers(whole)
    assert (resumed.findings, resumed.status, resumed.checks) == (whole.findings, whole.status, whole.checks)
    with pytest.raises(SpecError, match="another run: seed was 5 and is 6"):
        diag_share(make(), rows=rows, seed=6, resume=tmp_path)
