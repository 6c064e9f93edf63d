"""Sharpness of sharded problems, by one and two processes, beside the same of whole ones."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from hessdiag import Problem, sharded, sharpness
from hessdiag.errors import ComputeError, SpecError
from hessdiag.questions.sharpness.along import trying
from tests.shards.forks import on_ranks

OPTIMIZERS = {
    "momentum": {"optimizer": "sgd(lr=0.1, momentum=0.9, weight_decay=0.01)"},
    "adam": {"optimizer": "adam(lr=1e-2)"},
    "muon": {"optimizer": "muon(lr=1e-2)"},
}


class Tied(nn.Module):
    """An embedding that is the head as well."""

    def __init__(self):
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.inner(self.table(tokens))).mean(1))


def mlp():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    with torch.no_grad():
        model[0].weight[2, :3] = 0.0
    return Problem(model, data=[(torch.randn(20, 4).double(), torch.arange(20) % 3)], loss="ce")


def tied():
    torch.manual_seed(0)
    data = [(torch.randint(0, 7, (10, 5)), torch.randint(0, 7, (10,))) for _ in range(2)]
    return Problem(Tied().double(), data=data, loss="ce")


CASES = [(mlp, "muon"), (mlp, "momentum"), (tied, "adam")]


def numbers(problem, name):
    """Everything that was measured, by name."""
    found = sharpness(problem, tol=1e-6, **OPTIMIZERS[name])
    told = {key: value for key, value in vars(found).items() if isinstance(value, (int, float, str, type(None)))}
    for key, one in [("noise", found.noise), *((one.kind, one) for one in found.readings)]:
        told |= {f"{key}.{what}": value for what, value in asdict(one).items()}
    spread = found.provenance.sharding
    return told, None if spread is None else (spread.processes, len(spread.peak_memory_bytes)), found.trusted


def in_pieces():
    """What this process finds of each case, and whether its pieces stand where they stood."""
    found = []
    for make, name in CASES:
        problem = sharded(make())
        before = [piece.detach().clone() for piece in problem.pieces]
        found.append((*numbers(problem, name), all(map(torch.equal, problem.pieces, before))))
    return found


@pytest.fixture(scope="module")
def whole():
    return [numbers(make(), name)[0] for make, name in CASES]


@pytest.fixture(scope="module")
def found():
    """By how many processes there were: what each of them found."""
    return {size: on_ranks(size, in_pieces) for size in (1, 2)}


@pytest.mark.parametrize("size", [1, 2])
def test_every_number_is_as_of_the_whole(whole, found, size):
    for rank in found[size]:
        for expected, (told, spread, trusted, still) in zip(whole, rank, strict=True):
            assert told.keys() == expected.keys()
            for key, value in expected.items():
                if key.endswith("stderr") or key == "engine":
                    continue  # residuals are differences that all but cancel
                allowed = pytest.approx(value, rel=1e-12, abs=0) if isinstance(value, float) else value
                assert told[key] == allowed, key
            assert spread == (size, size)
            assert trusted
            assert still


@pytest.mark.parametrize("size", [1, 2])
def test_residuals_are_those_of_the_whole_beside_their_eigenvalues(whole, found, size):
    for expected, (told, *_) in zip(whole, found[size][-1], strict=True):
        for kind in ("lambda_max", "preconditioned", "adaptive"):
            if f"{kind}.stderr" in expected:
                apart = abs((told[f"{kind}.stderr"] or 0.0) - (expected[f"{kind}.stderr"] or 0.0))
                assert apart <= 1e-12 * expected[f"{kind}.value"]


def test_pieces_stand_where_they_stood_after_an_exception():
    problem = sharded(mlp())
    before = [piece.detach().clone() for piece in problem.pieces]
    problem.pieces[0].data[1] = -0.0
    before[0][1] = -0.0
    ahead = torch.ones(problem.layout.own, dtype=torch.float64)
    with pytest.raises(ComputeError, match="memory"):
        _fail_ahead(problem, ahead)
    for piece, value in zip(problem.pieces, before, strict=True):
        assert torch.equal(piece.detach().view(torch.int64), value.view(torch.int64))


def _fail_ahead(problem, ahead):
    with trying(problem, ahead) as loss:
        assert loss(1.0) != loss(0.0)
        loss(0.5)
        raise ComputeError("memory")


def test_a_loss_that_is_not_finite_counts_as_infinite():
    data = [(torch.ones(2, 1).double(), torch.zeros(2, 1).double())]
    problem = sharded(Problem(nn.Linear(1, 1).double(), data=data, loss="mse"))
    with trying(problem, torch.ones(2, dtype=torch.float64)) as loss:
        assert loss(1e154) == float("inf")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"optimizer": "adam", "state": "kept.pt#optimizer"}, "kept.pt#optimizer holds an optimizer's state of whole"),
        ({"optimizer": "kept.pt#optimizer"}, "kept.pt#optimizer holds an optimizer's state of whole"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)}, "holds whole parameters"),
        ({"optimizer": lambda params: Odd(params, {"lr": 0.1})}, "may step a parameter by what others are"),
        ({"optimizer": lambda params: torch.optim.LBFGS(params)}, "looks for its step by itself"),
    ],
)
def test_what_pieces_do_not_have_is_refused(asked, says):
    with pytest.raises(SpecError, match=says) as refused:
        sharpness(sharded(mlp()), **asked)
    assert refused.value.hint


class Odd(torch.optim.Optimizer):
    """Whose step of one parameter may be anything."""

    def step(self, closure=None):
        return closure


def test_the_command_line_says_the_same_and_how_the_model_was_spread(hessdiag):
    asked = (
        "sharpness",
        "builtin:mlp(width=4,depth=2)",
        "--optimizer",
        "adam(lr=1e-2)",
        "--dtype",
        "float64",
        "--json",
    )
    plain, spread = (hessdiag(*asked, *more) for more in ((), ("--shard",)))
    assert (plain.code, spread.code) == (0, 0), spread.err
    one, other = (json.loads(outcome.out) for outcome in (plain, spread))
    assert other["provenance"]["sharding"]["processes"] == 1
    assert "sharding" not in one["provenance"]
    assert other["result"]["ratio"] == pytest.approx(one["result"]["ratio"], rel=1e-9)
    assert other["result"]["engine"]
    refused = hessdiag(*asked, "--shard", "--state", "kept.pt#optimizer")
    assert refused.code == 2
    assert "without --shard" in refused.err
