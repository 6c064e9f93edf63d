"""Tables and heads in pieces against the same model whole: values, gradients and Hessian-vector products."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine.ranks import ranks
from hessdiag.problem.problem import Problem
from hessdiag.shards.layout import share
from hessdiag.shards.placeholder import OutsideUnitError, hollow
from hessdiag.shards.problem import sharded
from hessdiag.shards.vocabulary import head, logits, streamed, tokens
from hessdiag.shards.vocabulary.logits_later import Logits
from hessdiag.shards.vocabulary.matrix import Matrix
from tests.shards.forks import on_ranks

COUNTS = (3, 1, 4, 2)  # samples of each rank
LENGTH = 5
CHUNKS = {"chunks"}
LOGITS = {"logits"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """All weights are streamed, a few rows and tokens at a time."""
    monkeypatch.setattr(streamed, "LEAST", 1)
    monkeypatch.setattr(streamed, "CLASSES", 1)
    monkeypatch.setattr(logits, "AT_ONCE", 39)
    monkeypatch.setattr(head, "AT_ONCE", 80)
    monkeypatch.setattr(tokens, "AT_ONCE", 120)


class Language(nn.Module):
    """A table, a layer between and a head."""

    def __init__(self, vocabulary=13, width=5, *, tied=False, bias=True, padding=None, frozen=()):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width, padding_idx=padding, sparse=padding is not None)
        self.between = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=bias)
        if tied:
            self.head.weight = self.table.weight
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter)
            parameter.requires_grad_(name not in frozen)

    def forward(self, ids):
        return self.head(torch.tanh(self.between(self.table(ids))))


def flat(output, labels, **options):
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), labels.reshape(-1), **options)


def hugging_face(output, labels):
    """As transformers does, but for the cast to float32."""
    labels = F.pad(labels, (0, 1), value=-100)[..., 1:].contiguous()
    return F.cross_entropy(output.view(-1, output.shape[-1]), labels.view(-1), ignore_index=-100)


def shifted(output, labels):
    return flat(output[..., :-1, :].contiguous(), labels[..., 1:], reduction="sum") / 7


def classes_second(output, labels):
    return F.cross_entropy(output.movedim(-1, 1), labels, label_smoothing=0.2)


def weighted(output, labels):
    weight = torch.linspace(0.1, 1, output.shape[-1], dtype=output.dtype)
    return F.cross_entropy(output[:, 1:].movedim(-1, 1), labels[:, 1:], weight=weight, label_smoothing=0.1)


def of_squares(output, labels):
    """The slope of each token's loss hangs on the parameters."""
    return (flat(output, labels, reduction="none") ** 2).mean()


def transposed(output, labels):
    return flat(output.transpose(0, 1), labels.T)


def criterion(output, labels):
    return nn.CrossEntropyLoss()(output.flatten(0, 1), labels.flatten())


def squares(output, labels):
    return (output**2).mean() + labels.sum() * 0


def with_squares(output, labels):
    return flat(output, labels) + squares(output, labels)


def in_place(output, labels):
    output[..., 2:3] = -1.0
    output *= 2
    return flat(output, labels)


def some_classes(output, labels):
    return flat(output[..., :-1], labels.clamp(max=output.shape[-1] - 2))


def log_softmax(output, labels):
    return F.nll_loss(output.flatten(0, 1).log_softmax(-1), labels.flatten().clamp(min=0))


def detached(output, labels):
    """The detached logits are constants."""
    return flat(output, labels) * flat(output.detach(), labels)


# name: options of the model, the loss, labels of a rank that do not count, what becomes of the logits
CASES = {
    "plain": ({}, flat, None, CHUNKS),
    "tied": ({"tied": True}, hugging_face, None, CHUNKS),
    "no bias, padding": ({"bias": False, "padding": 3}, shifted, None, CHUNKS),
    "tied, padding": ({"tied": True, "padding": -1}, flat, None, CHUNKS),
    "narrow": ({"vocabulary": 24, "width": 4}, classes_second, None, CHUNKS),
    "rows over several ranks": ({"vocabulary": 3, "width": 2}, flat, None, CHUNKS),
    "frozen head": ({"frozen": ("head.weight",)}, flat, None, CHUNKS),
    "frozen table": ({"frozen": ("table.weight", "between.weight", "between.bias")}, flat, None, CHUNKS),
    "frozen, tied": ({"tied": True, "frozen": ("table.weight",)}, flat, None, CHUNKS),
    "only a bias": ({"frozen": ("table.weight", "between.weight", "between.bias", "head.weight")}, flat, None, CHUNKS),
    "ignored in all of a rank": ({}, lambda a, b: flat(a, b, reduction="sum"), slice(None), CHUNKS),
    "ignored in part": ({"tied": True}, hugging_face, slice(1, 3), CHUNKS),
    "weights of classes": ({}, weighted, slice(1, 3), CHUNKS),
    "slopes that move": ({"tied": True}, of_squares, None, CHUNKS),
    "transposed": ({}, transposed, None, CHUNKS),
    "a criterion": ({"bias": False}, criterion, None, CHUNKS),
    "squares": ({"tied": True}, squares, None, LOGITS),
    "squares, frozen": ({"frozen": ("head.weight",)}, squares, None, LOGITS),
    "also squares": ({}, with_squares, None, CHUNKS | LOGITS),
    "in place": ({}, in_place, None, LOGITS),
    "some of the classes": ({"tied": True}, some_classes, None, LOGITS),
    "log_softmax": ({}, log_softmax, None, LOGITS),
    "detached": ({}, detached, None, CHUNKS | LOGITS),
}
# what differs between processes; the rest differs in what is done with logits
OF_SEVERAL = (
    "tied, padding",
    "rows over several ranks",
    "frozen head",
    "only a bias",
    "ignored in all of a rank",
    "weights of classes",
    "slopes that move",
    "squares",
)


def batches(vocabulary, size, ignored):
    """Ids and labels of each rank; ids repeat."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in COUNTS[:size]:
        ids, labels = torch.randint(0, vocabulary, (2, count, LENGTH), generator=generator)
        found.append((ids, labels))
    if ignored is not None:
        found[-1][1][:, ignored] = -100
    return found


def derivatives(losses, leaves, directions):
    """Value, gradient and product with a direction, flat."""
    value = sum(losses)
    gradient = torch.autograd.grad(value, leaves, create_graph=True)
    product = torch.autograd.grad(gradient, leaves, directions, retain_graph=ranks()[1] < 4)
    if ranks()[1] < 4:  # again from the same graph, with several vectors at once
        several = [torch.stack([0.5 * part.flip(0), part]) for part in directions]
        both = torch.func.vmap(lambda *v: torch.autograd.grad(gradient, leaves, v, retain_graph=True))(*several)
        first = torch.autograd.grad(gradient, leaves, [part[0] for part in several])
        for found, *expected in zip(both, first, product, strict=True):
            torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-13)
    return value.detach(), [part.detach() for part in gradient], list(product)


def in_pieces(model, loss, data, directions):
    """The same of this rank's samples, with a piece of each parameter."""
    rank, size = ranks()
    model = hollow(model, rank, size)
    assert all(streamed.stream(unit) for unit in model.children())
    model = copy.deepcopy(model)  # as evaluations do
    leaves = [parameter.piece for parameter in model.parameters() if parameter.requires_grad]
    own = [F.pad(v.flatten(), (0, size * len(leaf) - v.numel())) for v, leaf in zip(directions, leaves, strict=True)]
    ids, labels = data[rank]
    losses = [loss(model(ids), labels)]
    found = derivatives(losses, leaves, [part.view(size, -1)[rank] for part in own])
    return *found, set.union(*(set(item.ways) for item in model.parameters()))


def run(size, cases):
    def work():
        found = {}
        for name, (options, loss, ignored, _) in cases.items():
            model, data, directions = made(options, ignored, size)
            found[name] = in_pieces(model, loss, data, directions)
        return found

    return on_ranks(size, work)


def made(options, ignored, size):
    torch.manual_seed(0)
    model = Language(**options).double()
    directions = [torch.randn_like(item) for item in model.parameters() if item.requires_grad]
    return model, batches(model.table.num_embeddings, size, ignored), directions


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pieces_give_what_the_whole_gives(size):
    cases = {name: CASES[name] for name in OF_SEVERAL} if size > 1 else CASES
    found = run(size, cases)
    for name, (options, loss, ignored, ways) in cases.items():
        model, data, directions = made(options, ignored, size)
        model.table.sparse = False
        leaves = [item for item in model.parameters() if item.requires_grad]
        expected = derivatives([loss(model(ids), labels) for ids, labels in data], leaves, directions)
        of_ranks = [one[name] for one in found]
        assert all(one[3] == ways for one in of_ranks), name
        assert sum(one[0] for one in of_ranks).item() == pytest.approx(expected[0].item(), rel=1e-12)
        for level in (1, 2):
            scale = torch.cat([part.flatten() for part in expected[level]]).norm()
            for index, part in enumerate(expected[level]):
                together = torch.cat([one[level][index] for one in of_ranks])
                assert together.numel() == size * share(part.numel(), size)
                apart = together - F.pad(part.flatten(), (0, together.numel() - part.numel()))
                assert float(apart.norm()) <= 1e-12 * float(scale), (name, level, index)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("rows", "width"), [(5, 3), (2, 7), (1, 4), (6, 1), (9, 4)])
def test_every_row_has_one_home(rows, width, size):
    weight = torch.arange(1.0, rows * width + 1).view(rows, width)
    homes = []
    for rank in range(size):
        matrix = Matrix(rows, width, rank, size)
        start, stop = matrix.run(rank)
        assert torch.equal(
            torch.cat([block.of(weight.flatten()[start:stop]).flatten() for block in matrix.blocks] or [weight[:0, 0]]),
            weight.flatten()[start:stop],
        )
        assert all(block.columns == slice(0, width) or block.rows.start in matrix.cut for block in matrix.blocks)
        homes += [row for row in range(rows) if start <= row * width < stop]
        assert [matrix.cut[matrix.begun]] == [tuple(r for r in matrix.cut if start <= r * width < stop)]
    assert homes == list(range(rows))


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that an operation gives."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for item in torch.utils._pytree.tree_leaves(found):
            if isinstance(item, torch.Tensor) and not isinstance(item, Logits) and not item.is_meta:
                self.numbers = max(self.numbers, item.numel())
        return found


def largest(loss):
    """Of a vocabulary of 600 x 16 numbers and 40 tokens."""
    torch.manual_seed(0)
    model = hollow(Language(600, 16, tied=True), *ranks())
    assert all(streamed.stream(unit) for unit in model.children())
    leaves = [parameter.piece for parameter in model.parameters()]
    ids = torch.randint(0, 600, (8, LENGTH))
    with Largest() as mode:
        gradient = torch.autograd.grad(loss(model(ids), ids), leaves, create_graph=True)
        torch.autograd.grad(gradient, leaves, [torch.ones_like(leaf) for leaf in leaves])
    return mode.numbers


def test_nothing_is_held_that_is_as_large_as_the_vocabulary(monkeypatch):
    monkeypatch.setattr(logits, "AT_ONCE", 2000)
    monkeypatch.setattr(head, "AT_ONCE", 2000)
    monkeypatch.setattr(tokens, "AT_ONCE", 800)
    pieces, tokens_by_classes = 600 * 16 // 2, 8 * LENGTH * 600
    for chunked, whole in on_ranks(2, lambda: (largest(hugging_face), largest(squares))):
        assert chunked == pieces
        assert whole >= tokens_by_classes  # so it would be seen: here logits are used for something else


def alone(model):
    model = hollow(model, 0, 1)
    assert all(streamed.stream(unit) for unit in model.children())
    return model


def test_a_weight_may_be_used_outside_its_module():
    model = Language(tied=True, bias=False)
    ids = torch.arange(6).view(2, 3)
    mine = alone(model)
    expected, found = (F.linear(torch.ones(2, 5), one.table.weight) for one in (model, mine))
    assert torch.allclose(found + 0, expected)
    with pytest.raises(OutsideUnitError, match=r"outside the module that owns it: .* of table.weight"):
        mine.table.weight * 2
    with pytest.raises(IndexError, match="ids run from 8 to 13; the table has 13 rows"):
        mine(ids + 8)
    with pytest.raises(IndexError, match="labels run from -7 to 0; there are 13 classes"):
        flat(mine(ids), torch.zeros(2, 3, dtype=torch.long) - 7 * (ids == 1))


def test_small_and_unknown_modules_are_left_alone(monkeypatch):
    class Twice(nn.Linear):
        def forward(self, x):
            return F.linear(x, 2 * self.weight)

    assert not streamed.stream(hollow(Twice(3, 4), 0, 1))
    assert not streamed.stream(hollow(nn.Conv1d(3, 4, 5), 0, 1))
    assert not streamed.stream(nn.Linear(3, 4))  # whole
    monkeypatch.setattr(streamed, "LEAST", 13)
    assert not streamed.stream(hollow(nn.Linear(3, 4), 0, 1))
    assert streamed.stream(hollow(nn.Linear(3, 5), 0, 1))


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_tables_whose_gradient_is_no_derivative_are_refused(option):
    table = hollow(nn.Embedding(4, 3, **option), 0, 1)
    assert streamed.stream(table)
    with pytest.raises(SpecError, match=f"weight has {next(iter(option))}"):
        table(torch.tensor([1]))


def test_hidden_states_that_change_after_the_head_are_refused():
    model = alone(Language())
    states = torch.randn(2, 5)
    output = model.head(states)
    states += 1
    with pytest.raises(ComputeError, match="changed in place after the head"):
        flat(output, torch.tensor([0, 1]))


def test_logits_answer_without_being_computed():
    model = alone(Language())
    output = model.head(torch.randn(2, 3, 5))
    assert (output.shape, output.dtype, len(output), output.requires_grad) == ((2, 3, 13), torch.float32, 2, True)
    half = output[:, 1:].to(torch.float64).contiguous().view(-1, 13)
    assert half.shape == (4, 13)
    assert streamed.ways(model) is None
    assert half.dtype is torch.float64
    assert torch.equal(half, output[:, 1:].reshape(-1, 13).double())
    assert streamed.ways(model).startswith("logits of the head whole")
    assert output.detach().numpy().shape == (2, 3, 13)


class Decoder(nn.Module):
    """Blocks that recompute themselves between a table and a head."""

    def __init__(self, outside=False):
        super().__init__()
        self.table, self.head = nn.Embedding(30, 4), nn.Linear(4, 30, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)) for _ in range(2)
        )
        if outside:
            self.blocks.append(Mixed(self.table))
        self.norm = nn.LayerNorm(4)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


class Mixed(nn.Module):
    """A block that looks into a table of another module."""

    def __init__(self, table):
        super().__init__()
        self.scale, self._table = nn.Parameter(torch.ones(4)), [table]

    def forward(self, x):
        return self.scale * F.linear(F.linear(x, self._table[0].weight), self._table[0].weight.T)


@pytest.mark.parametrize("outside", [False, True])
def test_units_leave_tables_and_heads_alone(outside, monkeypatch):
    monkeypatch.setattr(streamed, "LEAST", 100)
    torch.manual_seed(0)
    ids, labels = torch.randint(0, 30, (2, 3, 5))
    problem = Problem(Decoder(outside).double(), [(ids, labels)], "ce")
    shards = sharded(problem)
    directions = [torch.randn_like(item) for item in problem.parameters]
    expected = derivatives([problem.evaluate((ids, labels))], problem.parameters, directions)
    found = derivatives([shards.evaluate((ids, labels))], shards.pieces, [part.flatten() for part in directions])
    for one, whole in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(
            torch.cat(one), torch.cat([part.flatten() for part in whole]), rtol=1e-12, atol=1e-14
        )
    if outside:  # all of the model is one unit
        assert shards.units.largest == problem.n_parameters
    else:
        assert shards.units.largest == 4 * 6 + 6
        assert streamed.ways(shards.model) == "cross-entropy of the head in chunks of the vocabulary"
