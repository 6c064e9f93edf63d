"""Questions about sharded problems, in 1, 2 and 4 processes, against one that has all of it."""

import json
from itertools import pairwise

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine import cost, memory
from hessdiag.machine.ranks import ranks
from hessdiag.questions.common.result import Provenance, Sharding
from hessdiag.questions.common.runs.spreading import Spreading
from hessdiag.questions.common.view import spread
from hessdiag.questions.eigs import measure as of_eigs
from hessdiag.questions.spectrum import measure as of_spectrum
from hessdiag.shards.units import Units
from tests.shards.forks import on_ranks

NORMS = ("frobenius", "gauss_newton", "residual")


class Tied(nn.Module):
    """A language model of sums, whose head is its table."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
        self.block = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids).cumsum(1)
        return self.head(x + self.block(x)).transpose(1, 2)


def mlp():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    return hessdiag.Problem(model, data=[(torch.randn(9, 5).double(), torch.arange(9) % 3)], loss="ce")


def tied():
    torch.manual_seed(0)
    ids = torch.randint(20, (5, 6))
    return hessdiag.Problem(Tied().double(), data=[(ids[:, :-1], ids[:, 1:])], loss="ce")


def asked(change):
    """What is found of each model, changed before; of several processes one asks less, for they wait for each other."""
    return of_the_blocks(change) if ranks()[1] == 4 else of_the_spectrum(change) | of_the_blocks(change)


def of_the_spectrum(change):
    eigs = hessdiag.eigs(change(mlp()), lowest=1, highest=1, tol=1e-10)
    pairs = (*eigs.lowest, *eigs.highest)
    spectrum = hessdiag.spectrum(change(mlp()), probes=2, steps=3)
    ggn = hessdiag.spectrum(change(mlp()), probes=2, steps=3, operator="ggn")
    return {
        "eigs": [*(pair.eigenvalue for pair in pairs), eigs.gradient_norm, eigs.gradient_curvature],
        "layer weights": [weight for pair in pairs for weight in pair.layer_weights],
        "spectrum": [spectrum.trace, spectrum.frobenius, spectrum.lowest, spectrum.highest],
        "ggn": [ggn.trace, ggn.frobenius, ggn.highest],
        "density": spectrum.density.values[::20],
        "sharding of eigs": processes_of(eigs),
        "sharding of spectrum": processes_of(spectrum),
    }


def of_the_blocks(change):
    blocks = hessdiag.blocks(change(tied()), probes=3)
    return {
        "blocks": [value for name in NORMS for row in getattr(blocks, name) for value in row],
        "errors of blocks": [value for name in NORMS for row in getattr(blocks, f"{name}_stderr") for value in row],
        "traces": [*blocks.trace, *blocks.trace_stderr],
        "masses": [*blocks.diagonal_mass, *blocks.diagonal_mass_stderr],
        "gains": [gain for gain in blocks.weight_gains if gain is not None],
        "said": [blocks.status, blocks.hvps, blocks.residual_diagonal_vanishes, *(one.says for one in blocks.findings)],
        "sharding of blocks": processes_of(blocks),
    }


def processes_of(result):
    return None if result.provenance.sharding is None else result.provenance.sharding.processes


@pytest.fixture(scope="module")
def answers():
    """What all of each number of processes found; 0 stands for one that has the whole model, and forms no matrix."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_eigs, "DENSE_UP_TO", 0)
        patch.setattr(of_spectrum, "EXACT_UP_TO", 0)
        whole = asked(lambda problem: problem)
    return {0: [whole]} | {size: on_ranks(size, lambda: asked(hessdiag.sharded)) for size in (1, 2, 4)}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pieces_give_the_same_numbers(answers, size):
    (one,), several = answers[0], answers[size]
    assert len(several) == size
    assert len(one) == 14
    rounding = 1e-14 * max(one["blocks"])  # of H - G where it is zero
    for found in several:
        assert len(found) == (7 if size == 4 else 14)
        for name, value in found.items():
            if name.startswith("sharding"):
                assert (one[name], value) == (None, size), name
            elif name == "said":
                assert value == one[name]
            else:
                assert value == pytest.approx(one[name], rel=1e-12, abs=rounding if "blocks" in name else 1e-14), name


def test_blocks_of_partitions_are_refused():
    with pytest.raises(SpecError, match="--by looks at rows") as refused:
        hessdiag.blocks(hessdiag.sharded(_problem(3, 2)), by="layer")
    assert refused.value.hint == "--shard without --by for norms of layers, or --by without --shard"


def _problem(*widths):
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    data = [(torch.ones(2, widths[0]), torch.ones(2, widths[-1]))]
    return hessdiag.Problem(nn.Sequential(*layers), data=data, loss="mse")


@pytest.mark.parametrize(
    ("ask", "option", "value"),
    [
        (hessdiag.eigs, "metric", "adam"),
        (hessdiag.eigs, "resume", "folder"),
        (hessdiag.spectrum, "metric", "adam"),
        (hessdiag.spectrum, "resume", "folder"),
        (hessdiag.blocks, "resume", "folder"),
    ],
)
def test_what_needs_whole_vectors_is_refused(ask, option, value):
    with pytest.raises(SpecError, match=f"--{option} ") as refused:
        ask(hessdiag.sharded(_problem(3, 2)), **{option: value})
    assert refused.value.hint == "without --shard"


def test_a_shortage_names_the_number_of_processes_that_would_do(monkeypatch):
    free = 400 * 2**20
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: free)
    problem = _problem(1000, 1000, 1000)
    with pytest.raises(ComputeError) as refused:
        hessdiag.eigs(problem, lowest=1, highest=1, max_basis=200)
    assert "--max-basis" in refused.value.hint
    weights = item = 4 * problem.n_parameters
    vectors = 200 + 2 + max(3 * 2, 2 + 3)
    each = cost.SPARE * (free + weights)
    size = -(-int(weights + (2.5 + vectors) * item) // int(each - 4.3 * 4 * 1_001_000))
    assert f"--shard with {size} processes" in refused.value.hint


def test_the_memory_model():
    theta, unit = 353e6, 28e6  # bytes of GPT-2 with a vocabulary of 4,096, and of one of its blocks
    spreading = Spreading(vector=int(theta), weights=int(theta), unit=int(unit), size=1, sharded=False)
    for size in (1, 2, 4):
        assert spreading.peak(0, size) == pytest.approx(3.5 * theta / size + 4.3 * unit)
        assert spreading.processes(0, spreading.peak(0, size) * 1.0001) == size
    assert spreading.processes(0, 4.2 * unit) is None


def test_how_it_was_spread_is_said_beside_what_was_measured():
    found = Sharding(processes=3, piece_bytes=1, largest_unit_bytes=1, peak_memory_bytes=(2**30, 2**31, 2**29))
    assert spread(Provenance(sharding=found)) == (("sharded", "over 3 processes, at most 2.0 GiB each"),)
    assert spread(Provenance()) == ()


def test_results_of_a_sharded_problem_are_read_back():
    found = hessdiag.spectrum(hessdiag.sharded(_problem(5, 4)), probes=2, steps=4)
    assert found.provenance.sharding.processes == 1
    text = json.loads(found.to_json())
    assert text["provenance"]["sharding"]["piece_bytes"] == 4 * 24
    assert text["problem"]["weights_sha256"] is None
    assert "sharded" in found.to_markdown()


def test_what_is_streamed_is_not_said_to_be_held(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 2**20)
    with pytest.raises(ComputeError, match="of it for the largest part of the model"):
        hessdiag.blocks(hessdiag.sharded(_problem(300, 300)))
    monkeypatch.setattr(Units, "largest", 0)
    with pytest.raises(ComputeError) as refused:
        hessdiag.blocks(hessdiag.sharded(_problem(300, 300)))
    assert "in each of 1 processes, and 1 MiB of memory are free" in refused.value.what
