"""What is kept of a forward pass that is watched: of each layer, of each tensor, and of one call of a function."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class Seen:
    """What was seen of one layer; of several calls, of the last one.

    Attributes:
        calls: How many there were.
        input: `measured` of what went in.
        output: Of what came out.
        signal: Of what left it, after a nonlinearity.
        activation: That nonlinearity.
        dead: Share of its units that are flat for all.
        saturated: Share of entries where it is.
        normed: Whether a normalization takes its output.
        exposed: Whether something else does.
        turned: Whether its matrix stands right of its input, (inputs, units).
        units: How many it puts out.
        rows: At how many positions of all samples.
        joined: Lone parameters that belong to it: the bias that is added to what it puts out.
        looked_up: Whether its matrix is one of rows that are looked up.
        output_gradient: Root mean square of the gradient of the loss by its output.
        input_gradient: The same by its input.
    """

    calls: int = 0
    input: Tensor | None = None
    output: Tensor | None = None
    signal: Tensor | None = None
    activation: str | None = None
    dead: Tensor | None = None
    saturated: Tensor | None = None
    normed: bool = False
    exposed: bool = False
    turned: bool = False
    units: int | None = None
    rows: int = 0
    joined: tuple[int, ...] = ()
    looked_up: bool = False
    output_gradient: Tensor | None = None
    input_gradient: Tensor | None = None


@dataclass(frozen=True)
class Tag:
    """Where a tensor comes from.

    Attributes:
        layers: It is what these put out, the last one last; before it, those whose output was only normalized since.
        unit: The dimension of the last one's units.
        past: Whether a normalization or a nonlinearity stands between, so that what takes it does not take the layer.
        made: The nonlinearity that made it, if nothing but its form was changed since.
        of: Of which layer and tensor (by identity) that nonlinearity was.
        source: The number of the input that it is, if nothing but its form was changed.
    """

    layers: tuple[int, ...] = ()
    unit: int = -1
    past: bool = False
    made: str | None = None
    of: tuple[int, int] | None = None
    source: int | None = None


@dataclass(eq=False)
class Call:
    """One call of a function.

    Attributes:
        name: Of the function.
        layers: Whose parameters it takes, or what is made of them.
        data: Tensors of the others that it takes.
        taken: How many tensors it takes.
        tag: Of the first of the data.
        activation: What nonlinearity it is.
        bounds: Between which that has a slope.
        flat: Units for which it had none.
        joins: Whether it adds a bias.
    """

    name: str
    layers: tuple[int, ...]
    data: tuple[Tensor, ...]
    taken: int
    tag: Tag
    activation: str | None
    bounds: tuple[float, float] | None
    flat: Tensor | None = None
    joins: bool = False
