"""Modules that attend, and the layers that make their queries, keys and values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from hessdiag.problem.parts.units import transposed
from hessdiag.problem.problem import Problem

_FILLERS = {"proj", "projection", "lin", "linear", "layer", "to", "w", "c", "attn", "dense", "fc", "in"}
_ROLES = {
    **dict.fromkeys(("q", "query", "queries", "wq"), "q"),
    **dict.fromkeys(("k", "key", "keys", "wk"), "k"),
    **dict.fromkeys(("v", "value", "values", "wv"), "v"),
    **dict.fromkeys(("kv", "key_value", "wkv"), "kv"),
    **dict.fromkeys(("qkv", "query_key_value", "wqkv", "qkvs"), "qkv"),
}
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")
_FUSED = {"c_attn", "in_proj", "att_proj", "attn_proj"}  # of which nothing but fillers is left


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer that makes queries, keys or values, or several of them.

    Attributes:
        weight: (channels, in), or (in, channels).
        bias: (channels,), if it has one.
        axis: That of the channels in the weight.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    axis: int


@dataclass(frozen=True, eq=False)
class Attention:
    """A module with layers for queries, keys and values. How its heads lie is for an experiment to find.

    Attributes:
        path: Where it is in the model.
        module: Itself.
        projections: In the order of registration.
    """

    path: str
    module: nn.Module
    projections: tuple[Projection, ...]

    @property
    def kind(self) -> str:
        """Class of the module."""
        return type(self.module).__name__

    @property
    def declared(self) -> int | None:
        """How many heads the module, or else the configuration that it keeps, says that it has."""
        for holder in (self.module, getattr(self.module, "config", None)):
            for name in _COUNTS:
                count = getattr(holder, name, None)
                if type(count) is int:
                    return count
        return None

    @property
    def norms(self) -> tuple[nn.Module, ...]:
        """Layers in it that normalize."""
        return tuple(child for child in self.module.modules() if "norm" in type(child).__name__.lower())


def attentions(problem: Problem) -> Iterator[Attention | tuple[str, nn.MultiheadAttention]]:
    """Attention in the order of registration; torch's own, whose layout is known, with its path."""
    for path, module in problem.model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield path, module
            continue
        roles: set[str] = set()
        found: list[Projection] = []
        for name, child in module.named_children():
            layer = projection(child)
            if layer is not None and (letters := role(name)):
                roles |= set(letters)
                found.append(layer)
        if roles == set("qkv"):
            yield Attention(path, module, tuple(found))


def projection(module: nn.Module) -> Projection | None:
    """A linear layer as a projection; `None` for any other module."""
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None or not (isinstance(module, nn.Linear) or transposed(module)):
        return None
    return Projection(weight, bias, 1 if transposed(module) else 0)


def role(name: str) -> str:
    """The letters of what a layer of this name makes: queries, keys, values; empty if it is called otherwise.

    >>> role("q_proj"), role("query"), role("to_kv"), role("Wqkv"), role("c_attn"), role("c_proj")
    ('q', 'q', 'kv', 'qkv', 'qkv', '')
    """
    low = name.lower()
    words = [word for word in re.split(r"_+", low) if word not in _FILLERS]
    return _ROLES.get("_".join(words), "qkv" if low in _FUSED else "")
