"""Small data that can be learnt in a few hundred steps: scikit-learn's own, and some that are made."""

import functools
from dataclasses import dataclass, replace
from typing import Literal

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor

Task = Literal["classes", "binary", "real"]


@dataclass(frozen=True)
class Data:
    """Batches to train on, and others to judge by.

    Attributes:
        x: Inputs to train on.
        y: Their targets.
        test_x: Inputs kept aside.
        test_y: Their true targets: classes on axis 1 of the output or on its last, 0 or 1, or real ones.
        task: How skill is reckoned.
        size: Of a batch.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    task: Task
    size: int = 64

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The training data in batches of one size."""
        whole = len(self.x) - len(self.x) % self.size
        return list(zip(self.x[:whole].split(self.size), self.y[:whole].split(self.size), strict=True))

    def inputs(self, change) -> "Data":
        """With other inputs."""
        return replace(self, x=change(self.x), test_x=change(self.test_x))

    def targets(self, change) -> "Data":
        """With other targets, in training and in judging."""
        return replace(self, y=change(self.y), test_y=change(self.test_y))

    def sized(self, size: int) -> "Data":
        """In batches of another size."""
        return replace(self, size=size)

    def to(self, dtype: torch.dtype) -> "Data":
        """Real inputs and targets in another dtype."""

        def change(tensor):
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        return self.inputs(change).targets(change)


def _split(x: Tensor, y: Tensor, task: Task, train: int, test: int = 256) -> Data:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return Data(x[:train], y[:train], x[train : train + test], y[train : train + test], task)


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def pixels(train: int = 1024) -> Data:
    """Digits, 64 numbers of mean 0 and variance 1."""
    x, y = _digits()
    return _split((x - x.mean()) / x.std(), y, "classes", train)


def raw_pixels(train: int = 1024) -> Data:
    """Digits, 64 numbers in [0, 1]."""
    return _split(*_digits(), "classes", train)


def images(train: int = 1024) -> Data:
    """Digits, (N, 1, 8, 8), of mean 0 and variance 1."""
    return pixels(train).inputs(lambda x: x.reshape(-1, 1, 8, 8))


def rows(train: int = 1024) -> Data:
    """Digits as sequences of their eight rows, (N, 8, 8)."""
    return pixels(train).inputs(lambda x: x.reshape(-1, 8, 8))


def reconstruction(train: int = 1024) -> Data:
    """Digits in [0, 1] that are to be put out again."""
    x, _ = _digits()
    return _split(x, x, "real", train)


def segments(train: int = 512) -> Data:
    """Digits, and for each pixel whether it is dark, light, or the edge of a stroke: (N, 1, 8, 8) and (N, 8, 8)."""
    x, _ = _digits()
    x = x.reshape(-1, 1, 8, 8)
    around = torch.nn.functional.avg_pool2d(x, 3, 1, 1)[:, 0]
    y = (around > 0.25).long() + (around > 0.5).long()
    return _split((x - x.mean()) / x.std(), y, "classes", train, 128)


def masks(train: int = 512) -> Data:
    """Digits, and a mask of what is bright around a pixel: (N, 1, 8, 8) both."""
    x, _ = _digits()
    x = x.reshape(-1, 1, 8, 8)
    y = (torch.nn.functional.avg_pool2d(x, 3, 1, 1) > 0.35).float()
    return _split((x - x.mean()) / x.std(), y, "binary", train, 128)


def tumours(raw: bool = False) -> Data:
    """Thirty measurements of a cell, and whether it is malign, (N, 1); `raw`: in their own units, up to 4,000."""
    found = load_breast_cancer()
    x, y = torch.tensor(found.data, dtype=torch.float32), torch.tensor(1 - found.target, dtype=torch.float32)[:, None]
    return _split(x if raw else (x - x.mean(0)) / x.std(0), y, "binary", 384, 185)


def surface(outputs: int = 1, train: int = 1024) -> Data:
    """Regression: a smooth function of eight normal features, of mean 0 and variance 1, with a tenth of noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(train + 256, 8, generator=generator)
    directions = torch.randn(8, 3, outputs, generator=generator) / 8**0.5
    parts = torch.einsum("ni,ijo->njo", x, directions)
    y = torch.sin(2 * parts[:, 0]) + parts[:, 1] * parts[:, 2] + parts[:, 1]
    y = (y - y.mean(0)) / y.std(0)
    return _split(x, y + 0.1 * torch.randn(y.shape, generator=generator), "real", train)


def topics(train: int = 1024, length: int = 12) -> Data:
    """Text: twelve words of 64, four in ten of them of the topic that is to be told, one of eight."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(8, (train + 256,), generator=generator)
    own = y[:, None] * 8 + torch.randint(8, (len(y), length), generator=generator)
    others = torch.randint(64, (len(y), length), generator=generator)
    x = torch.where(torch.rand(len(y), length, generator=generator) < 0.4, own, others)
    return _split(x, y, "classes", train)


def language(train: int = 512, length: int = 16, words: int = 24) -> Data:
    """Tokens and the next one of each: of a chain in which a word's successor is certain nine times in ten."""
    generator = torch.Generator().manual_seed(0)
    successor = torch.randperm(words, generator=generator)
    chain = [torch.randint(words, (train + 128,), generator=generator)]
    for _ in range(length):
        strays = torch.rand(len(chain[0]), generator=generator) < 0.1
        chain.append(torch.where(strays, torch.randint(words, strays.shape, generator=generator), successor[chain[-1]]))
    whole = torch.stack(chain, 1)
    return _split(whole[:, :-1], whole[:, 1:], "classes", train, 128).sized(32)


def padded(train: int = 512, length: int = 60) -> Data:
    """One word of eight, which is the class, and padding behind it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(1, 9, (train + 128,), generator=generator)
    x = torch.zeros(len(y), length, dtype=torch.long)
    x[:, 0] = y
    return _split(x, y - 1, "classes", train, 128)


def pairs(train: int = 1024) -> Data:
    """Two digits, (N, 2, 64), and whether they are the same, (N, 1); half of them are."""
    x, y = _digits()
    x = (x - x.mean()) / x.std()
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(len(y), (train + 256,), generator=generator)
    members = [torch.nonzero(y == label)[:, 0] for label in range(10)]
    same = torch.rand(len(first), generator=generator) < 0.5
    draw = torch.rand(len(first), generator=generator)
    second = [
        members[y[i]][int(u * len(members[y[i]]))] if s else int(u * len(y))
        for i, s, u in zip(first, same, draw, strict=True)
    ]
    second = torch.as_tensor(second)
    return _split(torch.stack([x[first], x[second]], 1), (y[first] == y[second]).float()[:, None], "binary", train)
