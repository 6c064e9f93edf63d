"""Classes and rows of embeddings: changing a class's block changes its own logit alone."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.partition import partition
from hessdiag.problem.problem import Problem

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
TOKENS = torch.tensor([[1, 5, 3], [3, 1, 6]])
IMAGES = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def _blocks(problem, by):
    parts = partition(problem, by)
    assert torch.equal(torch.cat(parts.indices).sort().values, torch.arange(problem.n_parameters))
    return dict(zip(parts.names, parts.indices, strict=True)), parts


def _mlp(*last, out=3):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, out), *last)


class Language(nn.Module):
    """Tokens to logits, classes last; a bias of the logits, and perhaps one table for both ends."""

    def __init__(self, tied=False, soft=False):
        super().__init__()
        self.wte, self.body = nn.Embedding(8, 4), nn.Linear(4, 4)
        self.lm_head, self.soft = nn.Linear(4, 8, bias=True), soft
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens):
        logits = self.lm_head(torch.tanh(self.body(self.wte(tokens)))) / 3
        return torch.tanh(logits) * 2 if self.soft else logits


class Turned(nn.Module):
    """Logits by a weight of (in, out), and a bias that is added by hand."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return x @ self.weight + self.bias


def _own(model, batch):  # a logarithm of a softmax in an objective by hand
    return -(F.log_softmax(model(batch[0]), -1) * F.one_hot(batch[1], 3)).sum()


def _squares(model, batch):
    return (model(batch[0]) - batch[1]).square().sum(1).mean() / 2


ONE_HOT = F.one_hot(Y, 3).float()
NEXT = (TOKENS, TOKENS.roll(1, 1))
POOLED = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
CASES = {  # and how many parameters a class has
    "ce": (_mlp(), (X, Y), {"loss": "ce"}, 6),
    "torch's ce": (_mlp(), (X, Y), {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, 6),
    "nll": (_mlp(nn.LogSoftmax(dim=1)), (X, Y), {"loss": "nll"}, 6),
    "one-hot targets": (_mlp(), (X, ONE_HOT), {"loss": "mse"}, 6),
    "squares by hand": (_mlp(), (X, ONE_HOT), {"objective": _squares}, 6),
    "softmax by hand": (_mlp(), (X, Y), {"objective": _own}, 6),
    "several labels": (_mlp(), (X, 1 - ONE_HOT), {"loss": "bce"}, 6),
    "probabilities": (_mlp(nn.Sigmoid()), (X, 1 - ONE_HOT), {"loss": nn.BCELoss()}, 6),
    "labels of pixels": (nn.Conv2d(2, 3, 3, padding=1), (IMAGES, torch.ones(2, 3, 5, 5)), {"loss": "bce"}, 19),
    "one sample without a batch": (nn.Linear(4, 3), (X[0], Y[1]), {"loss": nn.CrossEntropyLoss()}, 5),
    "tokens": (Language(), NEXT, {"loss": "ce"}, 5),
    "capped logits": (Language(soft=True), NEXT, {"loss": "ce"}, 5),
    "pixels": (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), (IMAGES, torch.ones(2, 5, 5).long()), {"loss": "ce"}, 19),
    "a weight turned": (Turned(), (X, Y), {"loss": "ce"}, 5),
    "pooled": (POOLED, (IMAGES, Y[:2]), {"loss": "ce"}, 19),
}


@pytest.mark.parametrize("name", CASES)
def test_a_class_moves_its_own_logit_alone(name):
    model, batch, options, size = CASES[name]
    problem = Problem(model, data=[batch], **options)
    blocks, parts = _blocks(problem, "class")
    count = 8 if isinstance(model, Language) else 3
    assert [label for label, kind in zip(parts.names, parts.kinds, strict=True) if kind == "class"] == [
        f"class {number}" for number in range(count)
    ]
    body = model[:-1] if name in ("nll", "probabilities") else model  # without what mixes the classes
    before = body(batch[0])
    dim = 1 if before.ndim == 4 else -1
    for number in range(count):
        flat = torch.zeros(problem.n_parameters)
        flat[blocks[f"class {number}"]] = 0.5
        pairs = zip(problem.named_parameters, flat.split([p.numel() for p in problem.parameters]), strict=True)
        moved = {key: parameter.detach() + more.reshape(parameter.shape) for (key, parameter), more in pairs}
        after = torch.func.functional_call(body, moved, batch[0])
        changed = (after - before).abs().movedim(dim, 0).reshape(count, -1)
        assert bool((changed[number] > 1e-6).all())
        assert changed.amax(1).nonzero().flatten().tolist() == [number]
        assert len(blocks[f"class {number}"]) == size


def test_which_layer_is_said_and_what_shares_it():
    problem = Problem(Language(tied=True), data=[(TOKENS, TOKENS.roll(1, 1))], loss="ce")
    blocks, parts = _blocks(problem, "class")
    assert parts.notes[0] == "a class is its row of lm_head.weight, which is also wte.weight and counts once"
    assert blocks["class 2"].tolist() == [8, 9, 10, 11, 32 + 20 + 2]


def test_a_transformers_model_with_its_own_loss():
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=9, n_embd=4, n_layer=1, n_head=2, n_positions=8)
    )
    problem = Problem(model, data=[{"input_ids": TOKENS, "labels": TOKENS}], loss="output")
    blocks, parts = _blocks(problem, "class")
    assert len([name for name in blocks if name.startswith("class")]) == 9
    assert blocks["class 1"].tolist() == [4, 5, 6, 7]
    assert "lm_head.weight, which is also transformer.wte.weight" in parts.notes[0]


class Taken(nn.Module):
    """Some of the outputs of the last layer, as logits."""

    def __init__(self, which):
        super().__init__()
        self.last, self.which = nn.Linear(4, 5), list(which)

    def forward(self, x):
        return self.last(x)[:, self.which]


def test_outputs_beyond_the_classes_are_left_over():
    blocks, parts = _blocks(Problem(Taken(range(3)), data=[(X, Y)], loss="ce"), "class")
    assert parts.names == ("class 0", "class 1", "class 2", "last.weight", "last.bias")
    assert blocks["last.bias"].tolist() == [23, 24]


class Mirrored(nn.Module):
    """Logits by the first layer's weight, turned: its bias is that of other units."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)

    def forward(self, x):
        return F.linear(torch.tanh(self.first(x)), self.first.weight.T)


def test_a_bias_of_the_other_side_is_no_class():
    blocks, _ = _blocks(Problem(Mirrored(), data=[(X, Y)], loss="ce"), "class")
    assert blocks["class 1"].tolist() == [1, 5, 9, 13, 17]
    assert blocks["first.bias"].tolist() == [20, 21, 22, 23, 24]


class Cut(nn.Module):
    """Logits by some rows of a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return F.linear(x, self.weight[2:])


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return F.layer_norm(self.last(x), (3,))


class Proxies(nn.Module):
    """Classes are rows of the loss's own weight."""

    def __init__(self):
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(3, 3))

    def forward(self, output, target):
        return F.cross_entropy(F.linear(output, self.proxies), target)


REFUSED = {
    "real targets": (_mlp(), (X, torch.randn(6, 3)), {"loss": "mse"}, "targets are not one-hot"),
    "targets with a one": (_mlp(), (X, ONE_HOT + 0.1 * (1 - ONE_HOT)), {"loss": "mse"}, "targets are not one-hot"),
    "a part of a weight": (Cut(), (X, Y), {"loss": "ce"}, "no linear or convolutional layer that is known"),
    "one output": (_mlp(out=1), (X, torch.ones(6, 1)), {"loss": "bce"}, "the output is one number"),
    "one label for each pixel": (
        nn.Conv2d(2, 1, 1),
        (IMAGES, torch.ones(2, 1, 5, 5)),
        {"loss": "bce"},
        "is one number",
    ),
    "a loss with weights of its own": (_mlp(), (X, Y), {"loss": Proxies()}, "no logits of single classes"),
    "classes in another order": (Taken([0, 2, 1]), (X, Y), {"loss": "ce"}, "no logits of single classes"),
    "a norm of the logits": (Mixing(), (X, Y), {"loss": "ce"}, "no logits of single classes"),
    "an objective": (_mlp(), (X, Y), {"objective": lambda model, batch: model(batch[0]).sum()}, "there are no classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_classes(name):
    model, batch, options, what = REFUSED[name]
    with pytest.raises(SpecError, match=what) as error:
        partition(Problem(model, data=[batch], **options), "class")
    assert error.value.what.startswith("--by class: ")


def test_a_frozen_last_layer_has_no_classes_to_show():
    model = _mlp()
    model[2].requires_grad_(False)
    with pytest.raises(SpecError, match=r"2\.weight is not measured: it is frozen, or left out"):
        partition(Problem(model, data=[(X, Y)], loss="ce"), "class")


def test_rows_of_an_embedding():
    problem = Problem(Language(), data=[(TOKENS, TOKENS), (TOKENS + 1, TOKENS)], loss="ce")
    blocks, parts = _blocks(problem, "embedding-row")
    assert list(blocks)[:8] == [f"wte[{row}]" for row in range(8)]
    assert set(parts.kinds[:8]) == {"embedding row"}
    assert blocks["wte[3]"].tolist() == [12, 13, 14, 15]
    assert parts.notes[0] == "wte: 1 of 8 rows is looked up in no batch: its curvature is zero"  # 1 to 7 are
    problem = Problem(Language(), data=[(TOKENS, TOKENS)], loss="ce")
    assert partition(problem, "embedding-row").notes[0].startswith("wte: 4 of 8 rows are looked up in no batch: their")
    every = torch.arange(8).reshape(2, 4)
    notes = partition(Problem(Language(), data=[(every, every)], loss="ce"), "embedding-row").notes
    assert "looked up" not in " ".join(notes)


def test_rows_of_a_shared_table_are_all_used():
    notes = partition(Problem(Language(tied=True), data=[(TOKENS, TOKENS)], loss="ce"), "embedding-row").notes
    assert notes[0] == "wte: its rows are also those of lm_head.weight, and count once"
    assert "looked up" not in " ".join(notes)


def test_no_embedding():
    with pytest.raises(SpecError, match="the model has no embedding"):
        partition(Problem(_mlp(), data=[(X, Y)], loss="ce"), "embedding-row")
    with pytest.raises(SpecError, match="no embedding is measured"):
        partition(Problem(Language(), data=[(TOKENS, TOKENS)], loss="ce", layers="body"), "embedding-row")


def test_tables_that_are_kept_to_a_norm():
    model = Language()
    model.wte.max_norm = 0.5  # rows are changed in the forward pass
    blocks, _ = _blocks(Problem(model, data=[(TOKENS, TOKENS.roll(1, 1))], loss="ce"), "class")
    assert blocks["class 2"].tolist() == [60, 61, 62, 63, 84 + 2]
