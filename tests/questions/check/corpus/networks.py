"""Architectures of the corpus, small enough for a second of training, each as people write it."""

import itertools

import torch
from torch import nn


def mlp(sizes, activation=nn.ReLU, norm=None, last=()):
    """Linear layers with an activation between each two, and before it a normalization."""
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), *([norm(fan_out)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]), *last)


def cnn(width=8, activation=nn.ReLU, norm=None, classes=10, depth=2):
    """Convolutions at full size, then pooling and a head."""
    layers, channels = [], 1
    for index in range(depth):
        layers += [nn.Conv2d(channels, width * min(index + 1, 2), 3, padding=1)]
        channels = layers[-1].out_channels
        layers += [*([norm(channels)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


def each(model, *kinds):
    """The modules of some kinds, in order."""
    return [module for module in model.modules() if isinstance(module, kinds)]


def initialized(model, weight, kinds=(nn.Linear, nn.Conv1d, nn.Conv2d)):
    """Every matrix drawn by `weight`, every bias zero."""
    for module in each(model, *kinds):
        weight(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model


def he(model):
    """He's initialization, for ReLU."""
    return initialized(model, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))


def scaled(model, factor, kinds=(nn.Linear, nn.Conv2d)):
    """Every matrix times a factor."""
    with torch.no_grad():
        for module in each(model, *kinds):
            module.weight.mul_(factor)
    return model


class Residual(nn.Module):
    """x + f(x), and its activation where it has one."""

    def __init__(self, branch, after=None):
        super().__init__()
        self.branch, self.after = branch, after or nn.Identity()

    def forward(self, x):
        return self.after(x + self.branch(x))


class ResNet(nn.Module):
    """Residual convolutions; without a normalization, `norm=nn.Identity`."""

    def __init__(self, blocks=3, width=12, norm=nn.BatchNorm2d, activation=nn.ReLU):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), norm(width), activation())

        def conv():
            return nn.Conv2d(width, width, 3, padding=1, bias=False)

        self.blocks = nn.Sequential(
            *(
                Residual(nn.Sequential(conv(), norm(width), activation(), conv(), norm(width)), activation())
                for _ in range(blocks)
            )
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class DenseNet(nn.Module):
    """Each block receives what all before it put out."""

    def __init__(self, blocks=3, growth=8):
        super().__init__()
        widths = [8 + growth * index for index in range(blocks + 1)]
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, growth, 3, padding=1))
            for width in widths[:-1]
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.cat([x, block(x)], 1)
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Down and up again with a bridge, for a label per pixel."""

    def __init__(self, width=8, classes=3, norm=nn.Identity):
        super().__init__()

        def conv(a, b):
            return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), norm(b), nn.ReLU())

        self.down, self.middle = conv(1, width), conv(width, 2 * width)
        self.up, self.out = nn.ConvTranspose2d(2 * width, width, 2, stride=2), nn.Conv2d(2 * width, classes, 1)

    def forward(self, x):
        kept = self.down(x)
        return self.out(torch.cat([kept, self.up(self.middle(nn.functional.max_pool2d(kept, 2)))], 1))


class Recurrent(nn.Module):
    """Sequences through a recurrent layer; the last state is classified, or every one."""

    def __init__(self, kind=nn.LSTM, features=8, width=32, outputs=10, words=None, every=False, **settings):
        super().__init__()
        self.embedding = nn.Embedding(words, features) if words else nn.Identity()
        self.cell = kind(features, width, batch_first=True, **settings)
        self.head, self.every = nn.Linear(width, outputs), every

    def forward(self, x):
        states, _ = self.cell(self.embedding(x))
        return self.head(states if self.every else states[:, -1])


class Block(nn.Module):
    """Attention and a network per position, normalized before (GPT), after (BERT) or not at all."""

    def __init__(self, width, heads, order="before", causal=False):
        super().__init__()
        norm = nn.LayerNorm if order != "none" else (lambda _: nn.Identity())
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = norm(width), norm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads, self.order, self.causal = heads, order, causal

    def attend(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.project(mixed.transpose(1, 2).reshape(n, t, d))

    def forward(self, x):
        if self.order == "after":
            x = self.first(x + self.attend(x))
            return self.second(x + self.feed(x))
        x = x + self.attend(self.first(x))
        return x + self.feed(self.second(x))


class GPT(nn.Module):
    """Next tokens; the head's matrix is the embedding's where they are tied."""

    def __init__(self, words=24, width=32, blocks=2, heads=4, tied=True, order="before", length=16):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, order, causal=True) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width) if order != "none" else nn.Identity()
        self.head = nn.Linear(width, words, bias=False)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x):
        x = self.words(x) + self.places.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(x)))


class ViT(nn.Module):
    """Four by four patches of two by two pixels, a token for the class."""

    def __init__(self, width=32, blocks=2, heads=4, order="before"):
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(Block(width, heads, order) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width) if order != "none" else nn.Identity()
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class BERT(nn.Module):
    """Topics of texts: blocks normalized after, the mean over words."""

    def __init__(self, words=64, width=32, blocks=2, heads=4, classes=8):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(Block(width, heads, "after") for _ in range(blocks)))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.blocks(self.drop(self.norm(self.words(x)))).mean(1))


class TextCNN(nn.Module):
    """Embedded words, a convolution along them, the largest of each channel."""

    def __init__(self, words=64, width=16, classes=8):
        super().__init__()
        self.words, self.conv = nn.Embedding(words, width), nn.Conv1d(width, 32, 3, padding=1)
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        return self.head(torch.relu(self.conv(self.words(x).transpose(1, 2))).amax(2))


class Siamese(nn.Module):
    """One encoder for two inputs, and a logit of how far apart they land."""

    def __init__(self, width=32):
        super().__init__()
        self.encoder, self.head = mlp([64, 64, width]), nn.Linear(width, 1)

    def forward(self, x):
        first, second = self.encoder(x[:, 0]), self.encoder(x[:, 1])
        return self.head((first - second).square())


class LowRank(nn.Module):
    """A frozen linear layer and a low-rank change of it, whose second factor starts at zero."""

    def __init__(self, frozen, rank=4):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x):
        return self.frozen(x) + x @ self.a.T @ self.b.T


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
