"""What ranks load and evaluate, run by `test_shards_ranks` in forks of one process."""

import math

import torch
from torch import nn

import hessdiag
from hessdiag import Problem, ProblemRequest
from hessdiag.errors import HessdiagError
from hessdiag.machine.ranks import ranks
from hessdiag.shards.problem import ShardedProblem


class Graph(nn.Module):
    """Nodes that take from their neighbours: samples cannot be parted."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 3)

    def forward(self, edges, x):
        h = torch.tanh(self.a(x))
        return h.index_add(0, edges[1], h[edges[0]])


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.head = nn.LSTM(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.memory(x)[0][-1])


class Rounding(nn.Module):
    """Computes in float32 inside, as norms and losses of language models do."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x):
        return self.a(x).float().double()


class Rewriting(nn.Linear):
    def forward(self, x):
        self.weight.data.mul_(0.5)
        return super().forward(x)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def negatives(model, batch):
    z = model(batch[0])
    return torch.logsumexp((z @ z.T).flatten(), 0)


def nearly(model, batch):
    """A mean over samples, but for a part in ten million that sees them all."""
    z = model(batch[0])
    return z.square().mean() * (1 + 1e-7 * z.mean())


X, Y = torch.linspace(-1, 1, 28).reshape(7, 4).sin().double(), torch.arange(7) % 3
IGNORED = torch.tensor([-100, -100, -100, 0, 1, 2, 0])
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])

# A model, its batches, the loss or objective, and whether each rank evaluates its own samples alone.
CASES = {
    "two batches": lambda: (mlp(), [(X, Y), (X[:4], Y[:4])], "ce", True),
    "sum": lambda: (mlp(), [(X, Y), (X[:4], Y[:4])], nn.CrossEntropyLoss(reduction="sum"), True),
    "ignored targets": lambda: (mlp(), [(X, IGNORED)], "ce", True),
    "one sample": lambda: (mlp(), [(X[:1], Y[:1])], "ce", True),
    "norm in eval mode": lambda: (
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)),
        [(X, Y)],
        "ce",
        True,
    ),
    "norm by the batch": lambda: (
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Tanh()),
        [(X, X[:, :3])],
        "mse",
        False,
    ),
    "in-batch negatives": lambda: (mlp(), [(X, Y)], negatives, False),
    "samples that hardly see each other": lambda: (mlp(), [(X, Y)], nearly, False),
    "rounding inside": lambda: (Rounding(), [(X, Y)], "ce", True),
    "graph": lambda: (Graph(), [((EDGES, X[:6, :2]), Y[:6])], "ce", False),
    "time first": lambda: (TimeFirst(), [(X.reshape(-1)[:24].reshape(2, 4, 3).repeat(2, 1, 1), Y[:4] % 2)], "ce", True),
}


def problem(case):
    torch.manual_seed(0)
    model, data, loss, _ = CASES[case]()
    how = {"objective": loss} if loss in (negatives, nearly) else {"loss": loss}
    return Problem(model.double(), data, **how)


def gradient(problem):
    leaves = problem.pieces if isinstance(problem, ShardedProblem) else problem.parameters
    total = 0.0
    with problem.evaluation():
        for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
            share = weight * problem.evaluate(batch)
            slopes = torch.autograd.grad(share, leaves, materialize_grads=True, allow_unused=True)
            total = total + torch.cat([slope.reshape(-1) for slope in slopes])
    return total


def compared(case):
    whole = problem(case)
    spread = hessdiag.sharded(whole)
    expected, found = gradient(whole), spread.layout.whole(gradient(spread))
    value = abs(spread.value() - whole.value()) / abs(whole.value())
    return value, float((found - expected).norm() / expected.norm()), spread.cut is not None


def message(act):
    try:
        act()
    except HessdiagError as error:
        return f"{type(error).__name__} {int(error.exit_code)}: {error.what}"
    return "nothing"


def unlike_models():
    torch.manual_seed(ranks()[0])
    hessdiag.sharded(Problem(mlp().double(), [(X, Y)], "ce"))


def unlike_batches():
    torch.manual_seed(0)
    hessdiag.sharded(Problem(mlp().double(), [(X + ranks()[0], Y)], "ce"))


def unlike_numbers_of_batches():
    torch.manual_seed(0)
    hessdiag.sharded(Problem(mlp().double(), [(X, Y)] * (1 + ranks()[0]), "ce"))


def unlike_losses():
    torch.manual_seed(0)
    hessdiag.sharded(Problem(mlp().double(), [(X, Y)], "ce" if ranks()[0] else nn.CrossEntropyLoss(reduction="sum")))


def unlike_in_training():
    torch.manual_seed(0)
    model = mlp().double()
    model[0].bias.requires_grad_(ranks()[0] == 0)
    hessdiag.sharded(Problem(model, [(X, Y)], "ce"))


def unlike(name):
    """Of what is loaded in pieces."""
    hessdiag.load_problem(ProblemRequest(f"net.py:{name}", device="cpu", shard=True))


def nan_on_one_rank():
    """In a weight of which the last rank alone has the numbers."""
    hessdiag.load_problem(ProblemRequest("net.py:setup", weights="nan.safetensors", device="cpu", shard=True))


def refused(model, **options):
    torch.manual_seed(0)
    hessdiag.sharded(Problem(model.double(), [(X, Y)], "ce", **options))


REFUSED = {
    "other models": unlike_models,
    "other batches": unlike_batches,
    "more batches": unlike_numbers_of_batches,
    "other losses": unlike_losses,
    "other losses, loaded": lambda: unlike("other_losses"),
    "frozen": unlike_in_training,
    "frozen, loaded": lambda: unlike("frozen"),
    "more layers, loaded": lambda: unlike("more_layers"),
    "NaN": nan_on_one_rank,
    "dropout": lambda: refused(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), train_mode=True),
    "norm": lambda: refused(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), train_mode=True),
    "rewritten": lambda: refused(nn.Sequential(mlp(), Rewriting(3, 3))),
}


def wrapped():
    """Of models that trainers have wrapped: what is loaded of DDP's, and what is said of FSDP's."""
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.manual_seed(0)
    model = mlp().double()
    ddp = hessdiag.sharded(Problem(DistributedDataParallel(model), [(X, Y)], "ce"))
    same = ddp.value() == hessdiag.sharded(Problem(model, [(X, Y)], "ce")).value()

    def first():
        Problem(FullyShardedDataParallel(mlp().double(), device_id=torch.device("cpu")), [(X, Y)], "ce")

    def second():
        spread = mlp().double()
        fully_shard(spread)
        Problem(spread, [(X, Y)], "ce")

    return same, message(first), message(second)


def everything():
    found = {case: compared(case) for case in CASES}
    if ranks()[1] == 2:
        found["said"] = {name: message(act) for name, act in REFUSED.items()}
        found["wrapped"] = wrapped()
    assert all(math.isfinite(found[case][0]) for case in CASES)
    return found
