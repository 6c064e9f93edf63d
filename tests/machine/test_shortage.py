"""Memory that runs out: halved where it can be, and told in one line with the flag that needs less."""

import copy

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.cli.main import run
from hessdiag.curvature import differences
from hessdiag.curvature.chains.layer_chain import LayerChain
from hessdiag.curvature.checks import examine
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.neuron_space import NeuronSpace
from hessdiag.linalg import krylov
from hessdiag.machine.shortage import ShortageError, asked, free, ran_out, sentence
from hessdiag.problem.problem import Problem

GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 512.00 MiB is "
    "free. Process 1 has 78.60 GiB memory in use."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8589934592 bytes. Error code 12 (Cannot allocate memory)"
)
OUT = {
    "GPU": torch.OutOfMemoryError(GPU),
    "CPU": RuntimeError(CPU),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes."),
    "driver": RuntimeError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuBLAS made": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    "cuSOLVER": RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "host": MemoryError(),
    "numpy": MemoryError("Unable to allocate 7.28 TiB for an array with shape (1000000, 1000000)"),
    "C++": RuntimeError("std::bad_alloc"),
    "system": OSError(12, "Cannot allocate memory"),
}
OTHER = [
    RuntimeError("vmap: it looks like you're calling .item() on a Tensor"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm`"),
    ValueError("out of memory"),  # of somebody's own
    OSError(28, "No space left on device"),
]


@pytest.mark.parametrize("error", OUT.values(), ids=OUT)
def test_what_says_that_memory_ran_out(error):
    assert ran_out(error)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_what_does_not(error):
    assert not ran_out(error)


def test_the_numbers_in_it():
    assert (asked(OUT["GPU"]), free(OUT["GPU"])) == (2 * 2**30, 512 * 2**20)
    assert (asked(OUT["CPU"]), free(OUT["CPU"])) == (8 * 2**30, None)
    assert asked(OUT["numpy"]) == int(7.28 * 2**40)
    assert sentence(OUT["GPU"], 5) == "memory ran out: 2.0 GiB more were asked, and 512 MiB are free"
    assert sentence(OUT["CPU"], 2**30) == "memory ran out: 8.0 GiB more were asked, and 1.0 GiB are free"
    assert sentence(OUT["cuDNN"]) == "memory ran out"


def _problem(*, samples=6, model=None):
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    return Problem(model.double(), data=[(torch.randn(samples, 2).double(), torch.arange(samples) % 2)], loss="ce")


def _scarce(monkeypatch, error, fitting):
    """Products for which memory runs out with more vectors than these."""
    computed = LayerChain.products

    def products(self, vectors, layer):
        if len(vectors) > fitting:
            raise error.with_traceback(None)  # without the places where other tests raised it
        return computed(self, vectors, layer)

    monkeypatch.setattr(LayerChain, "products", products)


@pytest.mark.parametrize(
    "error", [error for error in OUT.values() if not isinstance(error, OSError)], ids=lambda e: str(e)[:20]
)
def test_passes_are_halved_and_stay_batched(monkeypatch, error):
    problem = _problem()
    expected = HessianOperator(problem).rows(torch.arange(17))
    operator = HessianOperator(problem)
    _scarce(monkeypatch, error, 5)
    torch.testing.assert_close(operator.rows(torch.arange(17)), expected)
    assert operator.chunk == 4
    assert operator.engine == f"batched {operator.method}; 4 vectors a pass, for memory ran out with more"


@pytest.mark.parametrize("matrix", [HessianOperator, GaussNewtonOperator])
def test_one_vector_that_does_not_fit_is_tried_once(monkeypatch, matrix):
    attempts = []
    operator = matrix(_problem(), check=False)

    def together(*_):
        attempts.append(1)
        raise OUT["cuBLAS"]

    monkeypatch.setattr(operator, "_together", together)
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        operator @ torch.ones(17).double()
    assert len(attempts) == 1


def test_recordings_make_room_first(monkeypatch):
    operator = HessianOperator(_problem(), check=False)
    together, left = operator._together, [OUT["GPU"]]
    operator._replays._kept["kind"] = lambda vectors, out=None: vectors

    def scarce(*args):
        if left:
            raise left.pop()
        return together(*args)

    monkeypatch.setattr(operator, "_together", scarce)
    assert (operator @ torch.ones(17).double()).isfinite().all()
    assert not operator._replays.used


def test_neuron_space_is_halved_and_the_same(monkeypatch):
    problem = _problem()
    space = NeuronSpace(problem)
    expected = space.tangents(0, 0, 3)
    whole = NeuronSpace._tangents

    def scarce(self, lower, first, last):
        if last - first > 1:
            raise OUT["GPU"]
        return whole(self, lower, first, last)

    monkeypatch.setattr(NeuronSpace, "_tangents", scarce)
    for found, wanted in zip(space.tangents(0, 0, 3), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)


def test_memory_is_not_taken_for_an_operation_that_cannot_be_batched(monkeypatch):
    from hessdiag.curvature import exact, neuron_layers

    problem = _problem()

    def batched_grad(*_):
        raise OUT["GPU"]

    space = NeuronSpace(problem)
    monkeypatch.setattr(neuron_layers, "batched_grad", batched_grad)
    with pytest.raises(torch.OutOfMemoryError):
        space.tangents(0, 0, 1)
    with pytest.raises(NotInNeuronSpaceError, match=r"memory ran out: 2\.0 GiB more were asked"):
        exact.neuron_space(HessianOperator(problem))


MEASURES = {
    "eigs": hessdiag.eigs,
    "spectrum": hessdiag.spectrum,
    "bounds": hessdiag.bounds,
    "share": hessdiag.diag_share,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("error", [OUT["GPU"], OUT["CPU"], OUT["host"]], ids=["GPU", "CPU", "host"])
def test_measurements_say_what_would_need_less(monkeypatch, measure, error):
    problem = _problem(samples=100)
    examine(HessianOperator(problem))
    _scarce(monkeypatch, error, 0)
    with pytest.raises(ShortageError, match="memory ran out") as caught:
        measure(problem)
    assert isinstance(caught.value, MemoryError)
    assert caught.value.hint == "--batch-size 64, or --layers GLOB for some of the parameters"
    assert "100 samples at a time" in caught.value.what


def test_vectors_that_do_not_fit_have_flags_of_their_own(monkeypatch):
    monkeypatch.setattr(krylov.KrylovSpace, "__init__", lambda *_, **__: torch.empty(2**60))
    with pytest.raises(ShortageError) as caught:
        hessdiag.eigs(
            Problem(nn.Linear(2, 2100).double(), data=[(torch.ones(3, 2).double(), torch.arange(3))], loss="ce")
        )
    assert caught.value.hint.startswith("--max-basis 20, or --lowest 1 --highest 1")
    assert "vectors of 6,300 numbers" in caught.value.what


def test_no_measurement_is_without_the_words():
    problem = _problem()
    problem.model[0].forward = lambda x: torch.empty(2**60)
    for name in ("eigs", "spectrum", "bounds", "blocks", "diag_share", "hessian"):
        with pytest.raises(ShortageError, match="memory ran out"):
            getattr(hessdiag, name)(problem)


def test_a_check_that_memory_does_not_allow_is_said(monkeypatch):
    problem = _problem()

    def deepcopy(model, memo):
        raise OUT["GPU"]

    monkeypatch.setattr(differences.copy, "deepcopy", deepcopy)
    found = examine(HessianOperator(problem, check=False))
    assert found.point.kind == "unchecked"
    assert found.checks["hvp_finite_difference"] is None
    monkeypatch.setattr(differences.copy, "deepcopy", copy.deepcopy)
    monkeypatch.undo()
    said = [one for one in hessdiag.eigs(problem).findings if "could not be checked" in one.says]
    assert len(said) == 1
    assert "memory ran out: 2.0 GiB more were asked" in said[0].because
    assert "--batch-size" in said[0].remedy


SCRIPT = """
import torch
from torch import nn

class Greedy(nn.Module):
    def __init__(self, above):
        super().__init__()
        self.first, self.above = nn.Linear(3, 2), above

    def forward(self, x):
        out = self.first(x).tanh()
        if torch.is_grad_enabled() and self.above:
            out.register_hook(lambda slope: torch.empty(2**60))
        return torch.empty(2**60) if self.above < 0 else out

def late():
    return Greedy(1), [(torch.randn(40, 3), torch.arange(40) % 2)], "ce"

def early():
    return Greedy(-1), [(torch.randn(40, 3), torch.arange(40) % 2)], "ce"
"""


@pytest.mark.parametrize("command", ["eigs", "diag-share", "spectrum", "bounds", "blocks"])
@pytest.mark.parametrize("setup", ["late", "early"])
def test_commands_end_in_two_lines(tmp_path, capsys, command, setup):
    (tmp_path / "net.py").write_text(SCRIPT)
    assert run([command, f"{tmp_path}/net.py:{setup}", "--no-progress"]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert "internal error" not in lines[0]
    assert "memory ran out" in lines[0]
    assert lines[1].startswith("  try: --batch-size 32")
    assert len(lines) == 2


def test_a_copy_in_float64_that_does_not_fit_is_made_in_its_own_dtype(monkeypatch):
    torch.manual_seed(0)
    problem = Problem(nn.Linear(2, 2), data=[(torch.randn(3, 2), torch.arange(3) % 2)], loss="ce")
    to = nn.Module.to

    def scarce(self, *args, dtype=None, **kwargs):
        if dtype == torch.float64:
            raise OUT["GPU"]
        return to(self, *args, dtype=dtype, **kwargs)

    monkeypatch.setattr(nn.Module, "to", scarce)
    assert differences.movable(problem).problem.dtype == torch.float32


def test_networks_are_halved_and_the_same(monkeypatch):
    from hessdiag.questions.vanishing import mlp_norms

    def norms():
        return hessdiag.vanishing(depth=[4], width=4, seeds=9, hessian_seeds=9, seed=3).depths[0]

    expected, run_all = norms(), mlp_norms.run
    sizes = []

    def scarce(weights, x, *args):
        sizes.append(len(x))
        if len(x) > 3:
            raise OUT["GPU"]
        return run_all(weights, x, *args)

    monkeypatch.setattr(mlp_norms, "run", scarce)
    found = norms()
    assert sizes[1:4] == [9, 4, 2]  # after that of the check
    for name in ("gradient_norm", "hessian_norm", "hessian_diagonal_blocks_norm"):
        assert getattr(found, name).median == pytest.approx(getattr(expected, name).median, rel=1e-12)


@pytest.mark.parametrize(("command", "flag"), [("vanishing", "--hessian-seeds 4"), ("forward", "--seeds 100")])
def test_networks_that_do_not_fit_are_told(monkeypatch, capsys, command, flag):
    from hessdiag.questions.forward import norms as forward_norms
    from hessdiag.questions.vanishing import mlp_norms

    def nothing(*_, **__):
        raise OUT["CPU"]

    monkeypatch.setattr(mlp_norms, "run", nothing)
    monkeypatch.setattr(forward_norms, "activate", nothing)
    assert run([command, "--depth", "4", "--width", "4", "--no-progress"]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-2] == "error: memory ran out: 8.0 GiB more were asked."
    assert lines[-1].startswith(f"  try: {flag}")
