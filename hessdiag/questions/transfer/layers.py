"""Which tensors of networks of several sizes belong together, and what each is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from hessdiag.errors import ComputeError
from hessdiag.nets.mup import Role, role
from hessdiag.problem.problem import Problem
from hessdiag.questions.transfer.result import Varied


@dataclass(frozen=True)
class Part:
    """One trained tensor of a network.

    Attributes:
        name: Its parameter's.
        shape: Its shape.
        embedding: Whether its rows are entries of a table.
        order: Where its layer is executed.
    """

    name: str
    shape: tuple[int, ...]
    embedding: bool
    order: int

    @property
    def module(self) -> str:
        """The name of its layer."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Kind:
    """Tensors that are alike: the key of a line."""

    role: Role
    pattern: str


def parts(problem: Problem) -> tuple[Part, ...]:
    """The trained tensors of a network, in the order of the parameter vector."""
    order = {}
    for number, layer in enumerate(problem.executed_layers):
        for parameter in problem.parameters_of(layer):
            order[id(parameter)] = number
    tables = {id(module.weight) for module in problem.model.modules() if isinstance(module, nn.Embedding)}
    return tuple(
        Part(name, tuple(parameter.shape), id(parameter) in tables, order[id(parameter)])
        for name, parameter in problem.named_parameters
    )


def roles(networks: Mapping[int, Sequence[Part]], varied: Varied) -> dict[int, dict[str, Role]]:
    """What each tensor of the networks is, by the size of the network and by name.

    Args:
        networks: Tensors by the size of their network.
        varied: What the size is.

    Raises:
        ComputeError: if networks of several widths have other tensors, or nothing grows.
    """
    if varied == "depth":
        return {size: _by_place(network) for size, network in networks.items()}
    small, large = (networks[size] for size in (min(networks), max(networks)))
    if [part.name for part in small] != [part.name for part in large]:
        odd = sorted({part.name for part in small} ^ {part.name for part in large})
        raise ComputeError(
            f"networks of widths {min(networks)} and {max(networks)} have other parameters: {odd[0]} is in one alone.",
            "{depth} in the place of {width}, if layers are what grows in number",
        )
    found = {
        one.name: role(one.shape, other.shape, embedding=one.embedding) for one, other in zip(small, large, strict=True)
    }
    if len(networks) > 1 and not set(found.values()) - {"fixed"}:
        raise ComputeError(
            f"networks of widths {min(networks)} and {max(networks)} have the same shapes: nothing grows.",
            "a MODEL whose layers get wider with {width}",
        )
    return dict.fromkeys(networks, found)


def _by_place(network: Sequence[Part]) -> dict[str, Role]:
    """The first matrix is the input, the last one the output."""
    order = [part.order for part in network if len(part.shape) > 1]
    ends: dict[int, Role] = {min(order, default=-1): "input", max(order, default=-1): "output"}
    return {part.name: ends.get(part.order, "hidden") if len(part.shape) > 1 else "vector" for part in network}


def kind(part: Part, role_of: Mapping[str, Role]) -> Kind:
    """The line that a tensor belongs to: matrices by name without numbers, vectors by what they are.

    >>> kind(Part("blocks.3.up.weight", (8, 4), False, 0), {"blocks.3.up.weight": "hidden"})
    Kind(role='hidden', pattern='blocks.*.up')
    """
    if len(part.shape) < 2:
        return Kind(role_of[part.name], f"all {part.name.rpartition('.')[2]} vectors")
    return Kind(role_of[part.name], re.sub(r"\d+", "*", part.module or part.name))


def lines(network: Sequence[Part], role_of: Mapping[str, Role]) -> dict[Kind, list[Part]]:
    """Tensors by line, in the order in which the first of each is executed, vectors last."""
    found: dict[Kind, list[Part]] = {}
    for part in sorted(network, key=lambda one: (len(one.shape) < 2, one.order)):
        found.setdefault(kind(part, role_of), []).append(part)
    return found


def named(line: Kind, members: Sequence[Part]) -> str:
    """What a line is called: the layer's own name, where it is one, else what names have in common.

    >>> pair = [Part(f"blocks.{block}.up.weight", (8, 4), False, block) for block in range(2)]
    >>> named(Kind("hidden", "blocks.*.up"), pair), named(Kind("hidden", "blocks.*.up"), pair[:1])
    ('blocks.*.up', 'blocks.0.up')
    """
    modules = [part.module or part.name for part in members]
    if len(members[0].shape) < 2:
        return line.pattern
    if len(modules) == 1:
        return modules[0]
    return line.pattern if line.pattern.strip("*.") else f"{modules[0]} ... {modules[-1]}"
