"""The heads of attention: of queries, keys and values rows of a weight with their biases, of the output columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.numbers import listed
from hessdiag.problem.parts.attention import Attention, attentions
from hessdiag.problem.parts.block import Block, Found, entries, merged, starts
from hessdiag.problem.parts.probe import Layout, layouts
from hessdiag.problem.problem import Problem


def heads(problem: Problem) -> Found:
    """One block for each head of queries, keys, values and output of each attention.

    The layout of `nn.MultiheadAttention` is torch's. That of any other module with layers for queries, keys and values,
    fused or not, is found by derivatives in one evaluation of the first batch; where it cannot be, the module's
    projections are one block, and a note says why. The output layer's bias serves all heads and is in no block.

    Args:
        problem: Whose parameters they are.

    Returns:
        Blocks in the order of registration, named `module.Q[head]`, of kinds "Q", "K", "V" and "O". Of keys and values
        that several heads share there are fewer.

    Raises:
        SpecError: if there is no attention, or none whose heads can be told, or none of their parameters is measured.

    >>> model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    >>> found = heads(Problem(model, data=[(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))], loss="mse"))
    >>> [block.name for block in found.blocks][:3], len(found.blocks), found.blocks[0].indices.tolist()
    (['self_attn.Q[0]', 'self_attn.Q[1]', 'self_attn.K[0]'], 8, [0, 1, 2, 3, 4, 5, 6, 7, 48, 49])
    """
    some = list(attentions(problem))
    if not some:
        raise SpecError(
            "--by head: the model has no attention that is known: no nn.MultiheadAttention, and no module with layers "
            "for queries, keys and values (such as q_proj, k_proj and v_proj, query_key_value, qkv or c_attn).",
            "--by layer, or patterns of names",
        )
    own = [one for one in some if isinstance(one, Attention)]
    found = dict(zip(own, layouts(problem, own) if own else [], strict=True))
    reasons: dict[str, list[str]] = {}
    shared: dict[str, list[str]] = {}
    pieces: list[_Piece] = []
    for one in some:
        if not isinstance(one, Attention):
            pieces += _of_torch(*one)
            continue
        layout = found[one]
        if isinstance(layout, str):
            reasons.setdefault(layout, []).append(one.path or "the model")
            pieces.append(_whole(one))
            continue
        pieces += _of_layout(one, layout)
        if len(layout.keys) < len(layout.queries):
            fewer = f"{len(layout.queries)} heads of queries share {len(layout.keys)} of keys and values"
            shared.setdefault(fewer, []).append(one.path or "the model")
    if len(reasons) and not any(piece.kind in "QKVO" for piece in pieces):
        reason, paths = next(iter(reasons.items()))
        raise SpecError(f"--by head: the heads of {listed(paths)} cannot be told: {reason}.", "--by layer")
    notes = [f"{listed(paths)}: {fewer}" for fewer, paths in shared.items()]
    notes += [
        f"{listed(paths)}: kept whole, for the heads cannot be told: {reason}" for reason, paths in reasons.items()
    ]
    blocks = _blocks(problem, pieces)
    if not blocks:
        raise SpecError("--by head: no parameter of a head is measured: all are frozen, or left out.", "--layers '*'")
    return Found(tuple(blocks), tuple(notes))


@dataclass(frozen=True, eq=False)
class _Piece:
    """A block, by the entries of the tensors that it has a part in."""

    name: str
    kind: str
    parts: Sequence[tuple[Tensor, Tensor]]


def _blocks(problem: Problem, pieces: Sequence[_Piece]) -> list[Block]:
    """What is measured of the pieces. Weights that two attentions share count once, for the first."""
    start = starts(problem)
    free = torch.ones(problem.n_parameters, dtype=torch.bool)
    blocks: list[Block] = []
    for piece in pieces:
        parts = [start[parameter] + places.reshape(-1) for parameter, places in piece.parts if parameter in start]
        parts = [part[free[part]] for part in parts]
        if any(len(part) for part in parts):
            blocks.append(merged(piece.name, piece.kind, parts))
            free[blocks[-1].indices] = False
    return blocks


def _of_layout(attention: Attention, layout: Layout) -> Iterator[_Piece]:
    label = attention.path or attention.kind
    for letter, which in zip("QKV", (layout.queries, layout.keys, layout.values), strict=True):
        for number, head in enumerate(which):
            parts: list[tuple[Tensor, Tensor]] = []
            for index, channels in head.channels.items():
                projection = attention.projections[index]
                weight = projection.weight
                parts.append((weight, entries(weight, 0).index_select(projection.axis, channels)))
                if projection.bias is not None:
                    parts.append((projection.bias, channels))
            yield _Piece(f"{label}.{letter}[{number}]", letter, parts)
    for number, columns in enumerate(layout.columns):
        own = entries(layout.output, 0).index_select(layout.axis, columns)
        yield _Piece(f"{label}.O[{number}]", "O", [(layout.output, own)])


def _whole(attention: Attention) -> _Piece:
    tensors = [one for layer in attention.projections for one in (layer.weight, layer.bias) if one is not None]
    return _Piece(attention.path or attention.kind, attention.kind, [(one, entries(one, 0)) for one in tensors])


def _of_torch(path: str, module: nn.MultiheadAttention) -> Iterator[_Piece]:
    """`nn.MultiheadAttention`: heads are slices in order, of queries, keys and values one after another where fused."""
    label = path or type(module).__name__
    own, width, size = module._parameters, module.embed_dim, module.head_dim
    for number, letter in enumerate("qkv"):
        for head in range(module.num_heads):
            inside = torch.arange(head * size, (head + 1) * size)
            among = number * width + inside
            tensors = {
                "in_proj_weight": among,
                "in_proj_bias": among,
                f"{letter}_proj_weight": inside,
                f"bias_{letter}": (slice(None), slice(None), inside),  # of the key and value that it adds to the others
            }
            parts = [
                (tensor, entries(tensor, 0)[which])
                for name, which in tensors.items()
                if (tensor := own.get(name)) is not None
            ]
            yield _Piece(f"{label}.{letter.upper()}[{head}]", letter.upper(), parts)
    weight = module.out_proj.weight
    for head in range(module.num_heads):
        yield _Piece(f"{label}.O[{head}]", "O", [(weight, entries(weight, 0)[:, head * size : (head + 1) * size])])
