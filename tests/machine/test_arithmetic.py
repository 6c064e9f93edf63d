"""Float32 is float32 while something is measured, whatever the user's flags say, and the flags are theirs afterwards."""

import itertools
import warnings

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.machine import arithmetic
from hessdiag.machine.arithmetic import ieee, insist, rounded
from hessdiag.problem.problem import Problem

BACKENDS = torch.backends
PLACES = {  # of the settings of torch 2.9 and later
    "all": ("generic", "all"),
    "gpu": ("cuda", "all"),
    "gpu conv": ("cuda", "conv"),
    "gpu rnn": ("cuda", "rnn"),
    "gpu matmul": ("cuda", "matmul"),
    "cpu": ("mkldnn", "all"),
    "cpu conv": ("mkldnn", "conv"),
    "cpu rnn": ("mkldnn", "rnn"),
    "cpu matmul": ("mkldnn", "matmul"),
}
NEW = pytest.mark.skipif(not arithmetic.BY_OPERATION, reason="torch has no settings by operation")


def _asked(read):
    try:
        return read()
    except RuntimeError:
        return "refused"


def _flags():
    """All that can be read."""
    old = {
        "cudnn": _asked(lambda: BACKENDS.cudnn.allow_tf32),
        "matmul": _asked(lambda: BACKENDS.cuda.matmul.allow_tf32),
        "precision": _asked(torch.get_float32_matmul_precision),
        "benchmark": BACKENDS.cudnn.benchmark,
        "cudnn on": BACKENDS.cudnn.enabled,
    }
    return old | ({name: arithmetic._get(*place) for name, place in PLACES.items()} if arithmetic.BY_OPERATION else {})


def _reset():
    for name, place in PLACES.items() if arithmetic.BY_OPERATION else ():
        arithmetic._set(*place, "tf32" if name in ("gpu conv", "gpu rnn") else "none")
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.benchmark = False


@pytest.fixture(autouse=True)
def flags_of_a_fresh_process():
    _reset()
    yield
    _reset()


def _settings(**values):
    def change():
        for name, value in values.items():
            arithmetic._set(*PLACES[name.replace("_", " ")], value)

    return change


def _old(cudnn=True, matmul="highest", benchmark=False):
    def change():
        BACKENDS.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(matmul)
        BACKENDS.cudnn.benchmark = benchmark

    return change


def _both(*changes):
    def change():
        for one in changes:
            one()

    return change


OLD = {
    "as torch starts": lambda: None,
    "tf32 nowhere": _old(cudnn=False),
    "high": _old(matmul="high"),
    "medium, benchmark": _old(matmul="medium", benchmark=True),
    "medium, cudnn off": _old(cudnn=False, matmul="medium"),
}
SETTINGS = {
    "all tf32": _settings(all="tf32"),
    "all ieee": _settings(all="ieee"),
    "all bf16, nothing of its own": _settings(gpu_conv="none", gpu_rnn="none", all="bf16"),
    "gpu tf32": _settings(gpu="tf32"),
    "gpu tf32, inherited": _settings(gpu_conv="none", gpu_rnn="none", gpu="tf32"),
    "all and gpu tf32, inherited": _settings(gpu_conv="none", all="tf32", gpu="tf32"),
    "conv alone": _settings(gpu_rnn="ieee"),
    "matmul alone": _settings(gpu_matmul="tf32"),
    "cpu bf16": _settings(cpu="bf16"),
    "cpu matmul and conv": _settings(cpu_matmul="bf16", cpu_conv="bf16"),
    "old and new against each other": _both(_old(cudnn=False, matmul="medium"), _settings(gpu_conv="tf32", all="tf32")),
    "new against old": _both(_old(cudnn=True, matmul="high"), _settings(gpu_conv="ieee", cpu_matmul="bf16")),
}
CASES = [pytest.param(change, id=name) for name, change in OLD.items()] + [
    pytest.param(change, id=name, marks=NEW) for name, change in SETTINGS.items()
]


@pytest.mark.parametrize("change", CASES)
def test_flags_are_strict_inside_and_the_users_outside(change):
    change()
    before = _flags()
    with ieee():
        assert rounded() == {}
        inside = _flags()
        with ieee():
            assert _flags() == inside
        assert _flags() == inside
        assert inside["benchmark"] is False
        for name in ("gpu conv", "gpu rnn", "gpu matmul", "cpu conv", "cpu rnn", "cpu matmul"):
            assert inside.get(name, "ieee") in ("ieee", "none")
    assert _flags() == before
    with pytest.raises(KeyboardInterrupt), ieee():
        raise KeyboardInterrupt
    assert _flags() == before


@NEW
@pytest.mark.parametrize("change", CASES)
@pytest.mark.parametrize("above", ["all", "gpu", "cpu"])
def test_what_was_inherited_is_so_afterwards(change, above):
    seen = []
    for measured in (False, True):
        _reset()
        change()
        if measured:
            with ieee():
                pass
        for value in ("ieee", "tf32", "none"):
            arithmetic._set(*PLACES[above], value)
            seen.append(_flags())
    assert seen[:3] == seen[3:]


def test_old_flags_alone(monkeypatch):
    """As in torch before 2.9, where there is nothing else."""
    monkeypatch.setattr(arithmetic, "BY_OPERATION", False)
    for cudnn, matmul in itertools.product((False, True), ("highest", "high", "medium")):
        _old(cudnn, matmul)()
        assert len(rounded()) == 2 * cudnn + {"highest": 0, "high": 1, "medium": 2}[matmul]
        with ieee():
            assert rounded() == {}
            assert BACKENDS.cudnn.allow_tf32 is False
            assert torch.get_float32_matmul_precision() == "highest"
        assert (BACKENDS.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (cudnn, matmul)


def test_the_first_to_come_and_the_last_to_go():
    """Two threads that measure at once: flags are the process's."""
    first, second = ieee(), ieee()
    torch.set_float32_matmul_precision("high")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "highest"
    second.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "high"


def test_no_advice_about_the_flags():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ieee():
            pass


class _Watched(nn.Module):
    """Notes the flags in forward, backward and double backward."""

    def __init__(self, seen, *, flips=False):
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 2, 3), nn.Linear(8, 2)
        self.seen, self.flips = seen, flips

    def forward(self, x):
        if self.flips:
            torch.set_float32_matmul_precision("medium")
            BACKENDS.cudnn.allow_tf32 = True
        else:
            _note(self.seen, "forward")
        hidden = _Noting.apply(torch.tanh(self.conv(x)).flatten(1), self.seen)
        return self.head(hidden)


def _note(seen, where):
    seen.append((where, rounded(), BACKENDS.cudnn.benchmark, arithmetic.autocast()))


class _Noting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seen):
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        _note(ctx.seen, "backward")
        return _Noting.apply(slope, ctx.seen), None


def _problem(seen, **options):
    torch.manual_seed(0)
    x, y = torch.randn(6, 1, 6), torch.arange(6) % 2
    return Problem(_Watched(seen, **options), data=[(x, y)], loss="ce")


MEASURES = {
    "hessian": hessdiag.hessian,
    "product": lambda problem: HessianOperator(problem) @ torch.ones(problem.n_parameters),
    "gradient": lambda problem: HessianOperator(problem).gradient(),
    "gauss-newton": lambda problem: hessdiag.GaussNewtonOperator(problem) @ torch.ones(problem.n_parameters),
    "fisher": lambda problem: hessdiag.FisherOperator(problem) @ torch.ones(problem.n_parameters),
    "value": lambda problem: problem.evaluate(problem.data[0]),
    "eigs": lambda problem: hessdiag.eigs(problem, lowest=1, highest=1),
    "spectrum": hessdiag.spectrum,
    "bounds": hessdiag.bounds,
    "blocks": hessdiag.blocks,
    "diag_share": hessdiag.diag_share,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_every_measurement_computes_in_float32(measure):
    seen = []
    _old(matmul="medium", benchmark=True)()
    before = _flags()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measure(_problem(seen))
        assert arithmetic.autocast() == ["cpu"]
    assert _flags() == before
    assert {where for where, *_ in seen} >= {"forward"}
    assert [told for told in seen if told[1:] != ({}, False, [])] == []


def test_a_model_that_allows_rounding_is_differentiated_without():
    seen = []
    before = _flags()
    HessianOperator(_problem(seen, flips=True)) @ torch.ones(26)
    assert {where for where, *_ in seen} == {"backward"}
    assert [told for told in seen if told[1:] != ({}, False, [])] == []
    assert _flags() == before


def test_numbers_under_autocast_are_those_without():
    expected = hessdiag.hessian(_problem([]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hessdiag.hessian(_problem([])), expected)


@pytest.mark.parametrize("measure", [hessdiag.eigs, hessdiag.hessian, hessdiag.spectrum])
def test_flags_come_back_after_an_error(measure):
    _old(matmul="high", benchmark=True)()
    before = _flags()
    problem = _problem([])
    problem.model.conv.weight.data.fill_(float("nan"))
    with pytest.raises(hessdiag.HessdiagError):
        measure(problem)
    assert _flags() == before


@pytest.mark.parametrize(
    "solve",
    [
        lambda linalg, A: linalg.eigsh(A, lowest=1, highest=1, tol=1e-2),
        lambda linalg, A: linalg.slq(A, probes=2, steps=5, seed=0),
        lambda linalg, A: linalg.lanczos(A, torch.ones(2100), 5),
        lambda linalg, A: linalg.trace(A, 6, seed=0, sketch=2),
        lambda linalg, A: linalg.frobenius(A, 6, seed=0, sketch=2),
        lambda linalg, A: linalg.diagonal(A, 6, seed=0, sketch=2),
        lambda linalg, A: linalg.gershgorin(A, 4, seed=0),
    ],
    ids=["eigsh", "slq", "lanczos", "trace", "frobenius", "diagonal", "gershgorin"],
)
def test_the_numerics_alone_compute_in_float32_too(solve):
    class Watched:
        shape, dtype, device = (2100, 2100), torch.float32, torch.device("cpu")

        def __matmul__(self, vectors):
            seen.append((rounded(), BACKENDS.cudnn.benchmark))
            return torch.linspace(1, 2, 2100)[:, None] * vectors if vectors.ndim == 2 else vectors

    seen = []
    _old(matmul="high", benchmark=True)()
    solve(hessdiag.linalg, Watched())
    assert seen
    assert all(one == ({}, False) for one in seen)


def test_insisting_is_undone_by_what_is_around():
    before = _flags()
    with ieee():
        torch.set_float32_matmul_precision("medium")
        insist()
        assert rounded() == {}
    assert _flags() == before | {key: "ieee" for key in ("gpu matmul", "cpu matmul") if key in before}
