"""Made-up batches: the shape of the first layer, targets that suit the loss, no global randomness."""

import pytest
import torch
from torch import nn

from hessdiag.errors import LoadError
from hessdiag.problem.batches.batch import forward, output_tensor, to
from hessdiag.problem.loading import synthetic
from hessdiag.problem.losses import loss as losses


class TransformerLike(nn.Module):
    """Raw parameters first, a patch convolution after: only 224 passes."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.patch = nn.Conv2d(3, 4, 56, stride=56)
        self.positions = nn.Parameter(torch.zeros(1, 17, 4))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(x[:, 0])


def flat(channels, side, *layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 3))


MODELS = {
    "linear": (lambda: nn.Linear(8, 3), (32, 8)),
    "bilinear": (lambda: nn.Bilinear(4, 4, 3), (32, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 5), (32, 2, 32)),
    "conv 32": (lambda: flat(4, 32, nn.Conv2d(3, 4, 3, padding=1)), (32, 3, 32, 32)),
    "conv 28": (lambda: flat(4, 28, nn.Conv2d(1, 4, 3, padding=1)), (32, 1, 28, 28)),
    "conv 8": (lambda: flat(4, 8, nn.Conv2d(1, 4, 3, padding=1)), (32, 1, 8, 8)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 3), (32, 1, 32, 32, 32)),
    "vision transformer": (TransformerLike, (32, 3, 224, 224)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 5)), (32, 16)),
    "lstm": (lambda: nn.LSTM(6, 4, batch_first=True), (32, 16, 6)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (32, 16, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (32, 16, 8)),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (32, 16, 8)),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3)), (32, 8)),
    "frozen batch norm": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)), (32, 3, 32, 32)),
    "float64": (lambda: nn.Linear(8, 3).double(), (32, 8)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", ["mse", "ce", "bce"])
def test_shapes(name, loss):
    build, shape = MODELS[name]
    model = build()
    state = torch.get_rng_state()
    ((inputs, target),), notes = synthetic.make(model, loss)
    assert torch.equal(torch.get_rng_state(), state)
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    assert tuple(first.shape) == shape
    assert model.training
    assert "synthetic" in notes[0]
    if name in ("conv3d", "vision transformer"):
        return  # large
    ready = to((inputs, target), dtype=next(model.parameters()).dtype)
    value = losses.NAMED[loss].function(output_tensor(forward(model, ready[0])), ready[1])
    assert torch.isfinite(value)
    assert value.requires_grad


def test_the_same_seed_gives_the_same_batch_in_any_dtype():
    one, two = (
        synthetic.make(nn.Linear(8, 3), "mse", seed=3)[0][0],
        synthetic.make(nn.Linear(8, 3).half(), "mse", seed=3)[0][0],
    )
    other = synthetic.make(nn.Linear(8, 3), "mse", seed=4)[0][0]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])


def test_a_teacher_is_a_function_of_the_inputs_and_varies():
    ((x, y),), _ = synthetic.make(nn.Linear(4, 2), "mse", batch_size=400)
    assert abs(float(x.mean())) < 0.1
    assert abs(float(x.std()) - 1) < 0.1
    assert y.shape == (400, 2)
    assert 0.2 < float(y.std()) < 1.5
    residual = y - x @ torch.linalg.lstsq(x, y).solution
    assert float(residual.std()) < 0.9 * float(y.std())  # the inputs explain much of it, and not all
    assert float(residual.std()) > 0.01


@pytest.mark.parametrize(
    ("loss", "values"),
    [("ce", {0, 1, 2}), ("nll", {0, 1, 2}), (nn.CrossEntropyLoss(), {0, 1, 2}), ("bce", {0, 1})],
)
def test_classes_are_uniform(loss, values):
    ((_, y),), _ = synthetic.make(nn.Linear(4, 3), loss, batch_size=3000)
    found, counts = y.unique(return_counts=True)
    assert set(found.tolist()) == values
    assert counts.min() / counts.max() > 0.9


def test_several_batches_differ():
    taken, _ = synthetic.make(nn.Linear(4, 3), "mse", batch_size=5, batches=3)
    assert [len(x) for x, _ in taken] == [5, 5, 5]
    assert not torch.equal(taken[0][0], taken[1][0])


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.w


@pytest.mark.parametrize(
    ("model", "loss", "said"),
    [
        (Raw(), "mse", "no layer tells"),
        (flat(4, 17, nn.Conv2d(3, 4, 3, padding=1)), "mse", "do not pass"),
        (nn.Linear(2, 2), "output", "labels"),
    ],
)
def test_where_none_can_be_made_up(model, loss, said):
    with pytest.raises(LoadError, match=said) as caught:
        synthetic.make(model, loss)
    assert "--data" in str(caught.value)
