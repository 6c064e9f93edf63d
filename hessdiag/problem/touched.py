"""The parameters that some batches touch: a table of which few rows are looked up, as a table of those rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import HessdiagError
from hessdiag.problem.problem import Problem

_LOOKUPS = ("EmbeddingBackward0", "EmbeddingBagBackward0")


@dataclass(frozen=True)
class Touched:
    """A problem of the touched parameters alone: its Hessian is the whole one without rows and columns of zeros.

    Attributes:
        problem: The same function, of fewer parameters. Its model shares all that it can with the whole one.
        kept: Where its parameters are in the whole parameter vector, ascending, (m,).
    """

    problem: Problem
    kept: Tensor


def touched(problem: Problem, least: float) -> Touched | None:
    """The problem of what the batches touch, as the autograd graph of each batch tells.

    A parameter is left out if no batch's graph holds it. A row of a table is, if the table belongs to `nn.Embedding` or
    `nn.EmbeddingBag`, is used for nothing but looking rows up, and no batch looks that row up: the function does not
    depend on it, and no second derivative with respect to it is anything but zero.

    Args:
        problem: What is differentiated.
        least: Share of the parameters that must be untouched.

    Returns:
        `None` where fewer are, or where the model cannot be rebuilt around smaller tables.

    >>> table = nn.Sequential(nn.Embedding(100, 2), nn.Flatten(), nn.Linear(4, 1))
    >>> part = touched(Problem(table, data=[(torch.tensor([[5, 7]]), torch.zeros(1, 1))], loss="mse"), least=0.1)
    >>> part.problem.n_parameters, part.kept[:4].tolist()
    (9, [10, 11, 14, 15])
    """
    try:
        rows = looked_up(problem)
    except (HessdiagError, RuntimeError):
        return None
    if problem.rewritten:  # a copy of the model has taken its place, whose tables are written to
        return None
    kept = torch.cat(
        [
            _places(parameter, place.start, rows[parameter])
            for parameter, place in zip(problem.parameters, problem.places(), strict=True)
        ]
    )
    if not 0 < len(kept) <= (1 - least) * problem.n_parameters:
        return None
    try:
        reduced = replace(problem, model=_rebuilt(problem.model, rows))
    except (HessdiagError, RuntimeError, TypeError, AttributeError):  # not every module can be made anew
        return None
    return Touched(reduced, kept) if reduced.n_parameters == len(kept) else None


def looked_up(problem: Problem) -> dict[nn.Parameter, Tensor | None]:
    """Of each parameter the rows that are looked up in any batch, ascending; `None` for all of them.

    Raises:
        HessdiagError: if a batch cannot be evaluated.
    """
    tables = _tables(problem.model)
    rows: dict[nn.Parameter, Tensor | None] = {
        parameter: torch.zeros(0, dtype=torch.int64, device=parameter.device) for parameter in problem.parameters
    }
    for batch in problem.data:
        value = problem.evaluate(batch)
        for parameter, nodes in _uses(value).items():
            known = rows.get(parameter)
            if known is None:  # not differentiated, or needed as a whole
                continue
            looked_up = [node._saved_indices for node in nodes if node is not None]
            if len(looked_up) < len(nodes) or parameter not in tables:
                rows[parameter] = None
            else:
                ids = torch.cat([known, *(some.reshape(-1).long() for some in looked_up)])
                rows[parameter] = torch.unique(ids)
    return rows


def _tables(model: nn.Module) -> set[nn.Parameter]:
    """Weights that belong to embeddings of torch's own classes and to nothing else."""
    tables: set[nn.Parameter] = set()
    others: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            plain = type(module) in (nn.Embedding, nn.EmbeddingBag) and name == "weight" and module.max_norm is None
            (tables if plain else others).add(parameter)
    return tables - others


def _uses(value: Tensor) -> dict[Any, list[Any]]:
    """For each leaf of a graph the nodes that use it: lookups in it as they are, anything else as `None`."""
    found: dict[Any, list[Any]] = {}
    ahead: list[Any] = [value.grad_fn]
    seen: set[Any] = set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for index, (before, _) in enumerate(node.next_functions):
            leaf = getattr(before, "variable", None)
            if leaf is None:
                ahead.append(before)
            else:
                lookup = node.name() in _LOOKUPS and index == 0
                found.setdefault(leaf, []).append(node if lookup else None)
    return found


def _places(parameter: nn.Parameter, start: int, rows: Tensor | None) -> Tensor:
    """Places in the parameter vector of the kept entries of one parameter."""
    if rows is None or not len(rows):
        return torch.arange(start, start + (parameter.numel() if rows is None else 0))
    width = parameter.numel() // len(parameter)
    return (start + rows.cpu()[:, None] * width + torch.arange(width)).reshape(-1)


class _Rows:
    """An embedding of the rows that are looked up: each id leads to its row's new place."""

    def look_up(self, ids: Tensor) -> Tensor:
        places: Tensor = self._places  # type: ignore[attr-defined]
        found = places[ids.long()]
        if bool((found < 0).any()):
            raise IndexError("a row was looked up that no batch looked up before")
        return found.to(ids.dtype)


class Embedding(_Rows, nn.Embedding):
    """`nn.Embedding` of some rows."""

    def forward(self, input: Tensor) -> Tensor:
        """Look rows up by their ids in the whole table."""
        return super().forward(self.look_up(input))


class EmbeddingBag(_Rows, nn.EmbeddingBag):
    """`nn.EmbeddingBag` of some rows."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look rows up by their ids in the whole table."""
        return super().forward(self.look_up(input), offsets, per_sample_weights)


def _rebuilt(model: nn.Module, rows: Mapping[nn.Parameter, Tensor | None]) -> nn.Module:
    """The model around smaller tables, and without derivatives of what is not reached; the rest is shared."""
    smaller = {
        parameter: nn.Parameter(parameter.detach()[kept].clone()) if len(kept) else _frozen(parameter)
        for parameter, kept in rows.items()
        if kept is not None
    }
    done: dict[nn.Module, nn.Module] = {}

    def rebuild(module: nn.Module) -> nn.Module:
        if module in done:
            return done[module]
        children = {name: child and rebuild(child) for name, child in module._modules.items()}
        own = {
            name: smaller[parameter]
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter in smaller
        }
        if own or any(children[name] is not child for name, child in module._modules.items()):
            done[module] = _anew(module, children, own)
            weight = module._parameters.get("weight")
            looked_up = rows.get(weight) if weight is not None else None
            if looked_up is not None and len(looked_up):
                _shrink(done[module], looked_up)
        else:
            done[module] = module
        return done[module]

    return rebuild(model)


def _frozen(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach(), requires_grad=False)


def _anew(module: nn.Module, children: Mapping[str, nn.Module | None], own: Mapping[str, nn.Parameter]) -> nn.Module:
    """A module of the same class and state, with other children and parameters."""
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError("a TorchScript module cannot be rebuilt")
    new: nn.Module = object.__new__(type(module))
    vars(new).update(vars(module))
    vars(new)["_parameters"] = {**module._parameters, **own}
    vars(new)["_modules"] = dict(children)
    return new


def _shrink(table: Any, rows: Tensor) -> None:
    """Make an embedding one of these rows, which its weight holds already."""
    places = torch.full((table.num_embeddings,), -1, device=rows.device)
    places[rows] = torch.arange(len(rows), device=rows.device)
    table.__class__ = {nn.Embedding: Embedding, nn.EmbeddingBag: EmbeddingBag}[type(table)]
    vars(table)["_places"] = places
    table.num_embeddings = len(rows)
    if table.padding_idx is not None:
        place = int(places[table.padding_idx])
        table.padding_idx = place if place >= 0 else None
