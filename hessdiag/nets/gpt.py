"""A small GPT, and sentences of a made-up language for it to learn."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import source
from hessdiag.nets.mup import refuse_unknown, start_small
from hessdiag.nets.network import check_sizes, seeded, uninitialized
from hessdiag.nets.tasks.task import setup

MUP_HEAD = 16  # channels of a head whose scores muP scales as the standard parametrization does
SUCCESSORS = 4  # of each token, in the language; the first follows half of the time, the next a quarter, ...
LANGUAGE, WORDS = 1, 2  # what random numbers are for


class Attention(nn.Module):
    """Causal attention of several heads, by plain matrix products, which differentiate twice on any device.

    Head h owns rows h * head_dim to (h + 1) * head_dim of `q_proj`, `k_proj` and `v_proj`, and those columns of
    `out_proj`.

    Args:
        width: Of the stream that it reads and adds to.
        heads: They share the width.
        bias: Whether the four layers have biases.
        dtype: Of the parameters.
        mup: Scale scores by 1/head_dim and not by its root: keys and queries of muP align as they are trained.
    """

    def __init__(self, width: int, heads: int, *, bias: bool, dtype: torch.dtype, mup: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale = math.sqrt(MUP_HEAD) / self.head_dim if mup else 1 / math.sqrt(self.head_dim)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            uninitialized(width, width, bias=bias, dtype=dtype) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (sequences, tokens, width) to the same shape; a token sees itself and those before it."""
        queries, keys, values = (self._heads(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        scores = queries @ keys.mT * self.scale
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ values
        seen: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return seen

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)


class Block(nn.Module):
    """One layer of a GPT: attention, then two linear layers with GELU between, each added to what it read.

    Args:
        width: Of the stream.
        heads: Of the attention.
        mlp_ratio: Units between the two linear layers, in widths.
        norm: A key of `NORMS`: of what each part reads.
        bias: Whether linear layers have biases.
        dtype: Of the parameters.
        mup: As of `Attention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int,
        norm: str,
        *,
        bias: bool,
        dtype: torch.dtype,
        mup: bool = False,
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = (NORMS[norm](width, dtype) for _ in range(2))
        self.attention = Attention(width, heads, bias=bias, dtype=dtype, mup=mup)
        self.up = uninitialized(width, mlp_ratio * width, bias=bias, dtype=dtype)
        self.down = uninitialized(mlp_ratio * width, width, bias=bias, dtype=dtype)
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """From (sequences, tokens, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        added: Tensor = self.down(self.activation(self.up(self.mlp_norm(x))))
        return x + added


NORMS: dict[str, Callable[[int, torch.dtype], nn.Module]] = {
    "layer": lambda width, dtype: nn.LayerNorm(width, dtype=dtype),
    "rms": lambda width, dtype: nn.RMSNorm(width, eps=1e-5, dtype=dtype),
    "none": lambda width, dtype: nn.Identity(),
}


class GPT(nn.Module):
    """Tokens to logits of the next token: embeddings of tokens and places, blocks, a norm and a linear head.

    Matrices start normal with variance 1/fan_in, those that add to the stream over `2 * layers` besides, embeddings
    with variance 1, biases at zero.

    Args:
        layers: Blocks.
        width: Of the stream.
        heads: Of each attention; they divide the width.
        vocabulary: How many tokens there are.
        context: The longest sequence.
        mlp_ratio: Units of a block's hidden layer, in widths.
        norm: "layer", "rms" or "none".
        bias: Whether linear layers have biases; the head never has.
        seed: Of the weights; `None` takes torch's global random state.
        dtype: Of the parameters.
        parametrization: "standard", or "mup", in which the head starts smaller by sqrt(base_width / width), scores are
            scaled by 1/head_dim, and each tensor has its own learning rate (`hessdiag.nets.mup`).
        base_width: The width at which both heads start alike; 1 is the table of the paper.

    Raises:
        SpecError: if a size is below 1, the heads do not divide the width, or norm or parametrization are unknown.

    >>> model = GPT(layers=1, width=12, heads=2, vocabulary=16, context=8, mlp_ratio=2, seed=0)
    >>> sum(parameter.numel() for parameter in model.parameters())
    1788
    >>> model(torch.tensor([[3, 1, 4, 1]])).shape
    torch.Size([1, 4, 16])
    """

    def __init__(
        self,
        layers: int = 2,
        width: int = 32,
        heads: int = 4,
        vocabulary: int = 256,
        context: int = 64,
        mlp_ratio: int = 4,
        norm: str = "layer",
        bias: bool = True,
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
        parametrization: str = "standard",
        base_width: int = 1,
    ) -> None:
        refuse_unknown(parametrization)
        _check(layers, width, heads, vocabulary, context, mlp_ratio, norm, dtype)
        super().__init__()
        generator = seeded(seed)
        self.token = _embedding(vocabulary, width, dtype, generator)
        self.place = _embedding(context, width, dtype, generator)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, norm, bias=bias, dtype=dtype, mup=parametrization == "mup")
            for _ in range(layers)
        )
        self.norm = NORMS[norm](width, dtype)
        self.head = uninitialized(width, vocabulary, bias=False, dtype=dtype)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                added = name.endswith(("out_proj", "down"))  # to the stream, which grows with every layer
                _draw(module, 2 * layers if added else 1, generator)
        start_small(self.head, parametrization, base_width)
        self.parametrization = parametrization

    def forward(self, tokens: Tensor) -> Tensor:
        """From whole numbers (sequences, tokens) to logits (sequences, tokens, vocabulary)."""
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        x = self.token(tokens) + self.place(places)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def gpt(
    layers: int = 2,
    width: int = 32,
    heads: int = 4,
    vocabulary: int = 256,
    context: int = 64,
    sequences: int = 8,
    mlp_ratio: int = 4,
    norm: str = "layer",
    bias: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    parametrization: str = "standard",
    base_width: int = 1,
) -> Mapping[str, Any]:
    """`GPT` and one batch of a language that it can learn: cross-entropy of the next token.

    Args:
        layers: Blocks.
        width: Of the stream.
        heads: Of each attention; they divide the width.
        vocabulary: How many tokens there are.
        context: Tokens that are read of each sequence.
        sequences: In the batch.
        mlp_ratio: Units of a block's hidden layer, in widths.
        norm: "layer", "rms" or "none".
        bias: Whether linear layers have biases.
        seed: Of weights and data.
        dtype: Of the parameters.
        parametrization: "standard", or "mup", in which the head starts smaller by sqrt(base_width / width), scores are
            scaled by 1/head_dim, and each tensor has its own learning rate (`hessdiag.nets.mup`).
        base_width: The width at which both heads start alike; 1 is the table of the paper.

    Returns:
        `{"model", "data", "loss"}`; inputs (sequences, context) and the tokens that follow, of the same shape.

    Raises:
        SpecError: if a size is below 1, the heads do not divide the width, or norm or parametrization are unknown.

    >>> task = gpt(layers=4, width=192)
    >>> sum(parameter.numel() for parameter in task["model"].parameters())
    1890432
    >>> x, y = task["data"]
    >>> x.shape, bool((x[:, 1:] == y[:, :-1]).all())
    (torch.Size([8, 64]), True)
    """
    if sequences < 1:
        raise SpecError(f"there is at least one sequence, not {sequences}.", "sequences=8")
    model = GPT(
        layers, width, heads, vocabulary, context, mlp_ratio, norm, bias, seed, dtype, parametrization, base_width
    )
    text = sentences(sequences, context + 1, vocabulary, seed)
    return setup(model=model, data=(text[:, :-1], text[:, 1:]), loss="ce")


def sentences(count: int, length: int, vocabulary: int, seed: int) -> Tensor:
    """Sequences of a made-up language, whole numbers (count, length).

    Each token has four successors, of chances 8/15, 4/15, 2/15 and 1/15. The next token is a successor of the last
    one or, half of the time, of the one before that, so that there is something for attention to find: a mixture
    transition distribution of order two (Raftery 1985).

    Args:
        count: Sequences.
        length: Tokens of each.
        vocabulary: How many tokens there are.
        seed: Of the language and of what is said in it.

    >>> sentences(2, 5, vocabulary=10, seed=0).shape
    torch.Size([2, 5])
    """
    language, words = source(seed, LANGUAGE, vocabulary), source(seed, WORDS, vocabulary)
    successors = torch.randint(vocabulary, (vocabulary, SUCCESSORS), generator=language)
    chances = 0.5 ** torch.arange(SUCCESSORS, dtype=torch.float64)
    which = torch.multinomial(chances, count * length, replacement=True, generator=words).reshape(count, length)
    back = torch.randint(2, (count, length), generator=words) + 1
    text = torch.randint(vocabulary, (count, length), generator=words)
    for step in range(2, length):
        before = text.gather(1, step - back[:, step : step + 1])[:, 0]
        text[:, step] = successors[before, which[:, step]]
    return text


def _check(
    layers: int, width: int, heads: int, vocabulary: int, context: int, mlp_ratio: int, norm: str, dtype: torch.dtype
) -> None:
    sizes = {"layers": layers, "width": width, "heads": heads, "vocabulary": vocabulary, "context": context}
    for name, size in (sizes | {"mlp_ratio": mlp_ratio}).items():
        if size < 1:
            raise SpecError(f"{name} of a GPT must be at least 1, not {size}.", f"{name}=1")
    if width % heads:
        near = next(number for number in range(heads, 0, -1) if width % number == 0)
        raise SpecError(f"{heads} heads cannot share a width of {width}.", f"heads={near}")
    if norm not in NORMS:
        raise SpecError(f"unknown norm {norm!r}: not one of {', '.join(NORMS)}.", "norm='layer'")
    numbers = (2 * vocabulary + context) * width + layers * (4 + 2 * mlp_ratio) * width**2
    check_sizes(layers, numbers, dtype, depth="layers", width=("width", width))


def _embedding(count: int, width: int, dtype: torch.dtype, generator: torch.Generator | None) -> nn.Embedding:
    vectors = torch.empty(count, width, dtype=torch.float64).normal_(generator=generator)
    return nn.Embedding(count, width, _weight=vectors.to(dtype))  # without one it would draw from torch's own


def _draw(layer: nn.Linear, parts: int, generator: torch.Generator | None) -> None:
    """Weights of variance 1/(fan_in * parts), drawn in float64 whatever the dtype, and biases of zero."""
    drawn = torch.empty(layer.weight.shape, dtype=torch.float64).normal_(generator=generator)
    with torch.no_grad():
        layer.weight.copy_(drawn / math.sqrt(layer.in_features * parts))
        if layer.bias is not None:
            layer.bias.zero_()
