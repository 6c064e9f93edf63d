"""What `transfer` answers: how what the optimizer sees changes with the size of a network."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.fields import Count, Number, Numbers, Real, ascending, same_length
from hessdiag.questions.common.result import Measured

Varied = Literal["width", "depth"]
OFF = 0.25  # powers closer than this are the same

Held = Literal["holds", "drifts", "open"]


@dataclass(frozen=True, kw_only=True)
class Slope:
    """d log(quantity) / d log(size): the power of the width with which something grows.

    Attributes:
        slope: Mean over networks of the slopes of straight lines; `None` where it cannot be told.
        stderr: Its standard error, over networks; `None` of fewer than two.
        low: Lower end of the 95 % interval, by Student's t.
        high: Its upper end.
        last: Slope between the two largest sizes alone, which the law at still larger ones is nearest to.
        held: Whether it is zero up to the tolerance: "holds", "drifts" or "open"; `None` where it is not known.
    """

    slope: Number = None
    stderr: Number = None
    low: Number = None
    high: Number = None
    last: Number = None
    held: Held | None = None


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Of the network as a whole.

    Attributes:
        lambda_max: Largest eigenvalue of the Hessian at initialization.
        lambda_max_weighted: Of D^{1/2} H D^{1/2}, D the learning rates over the base rate, divided by what an adaptive
            optimizer divides gradients by: the curvature that the optimizer sees.
        update: Root mean square over matrices of the spectral norm of their change, times sqrt(inputs / outputs).
        activation: Root mean square over layers of the change of a layer's output, entry by entry.
    """

    lambda_max: Slope = Slope()
    lambda_max_weighted: Slope = Slope()
    update: Slope = Slope()
    activation: Slope = Slope()


@dataclass(frozen=True, kw_only=True)
class SizeMeans:
    """Networks of one size; means are geometric, over networks.

    Attributes:
        size: Their width, or depth.
        parameters: Of each.
        networks: How many were measured.
        diverged: In how many a loss or an activation was not finite, or the loss grew tenfold.
        lambda_max: As in `Slopes`.
        lambda_max_weighted: Likewise; `None` where the optimizer has no diagonal, as Muon.
        largest_lr: The learning rate at which the optimizer's stability ends here; `None` where no threshold is known.
        update: As in `Slopes`.
        activation: Likewise.
        loss: Before the first step and after each, means over networks.
    """

    size: Count
    parameters: Count
    networks: Count
    diverged: Count = 0
    lambda_max: Number
    lambda_max_weighted: Number
    largest_lr: Number
    update: Number
    activation: Number
    loss: Numbers = ()


@dataclass(frozen=True, kw_only=True)
class LayerPowers:
    """Layers of one kind.

    Attributes:
        name: Which: a layer's name, or a pattern of several.
        role: "input", "hidden", "output" (which sides of the matrix grow), "vector" (biases, gains) or "fixed"; of
            depths the first, the inner and the last.
        tensors: How many of them there are in the largest network.
        rate: Power of the size in its learning rate; `None` where that is zero.
        initial_weight: Power in the root mean square of its initial entries; `None` where they are zero.
        initial_activation: Power in its outputs before the first step; `None` of vectors.
        first_update: Of the first step's change of the weights.
        update: Of the change after all steps.
        activation: Of the change of its outputs; nothing of vectors.
        mended_rate: The power that its learning rate would need; `None` where it is not known.
        mended_weight: The power that its initial entries would need; `None` where they are as they should be.
    """

    name: str
    role: Literal["input", "hidden", "output", "vector", "fixed"]
    tensors: Count = 1
    rate: Number = None
    initial_weight: Number = None
    initial_activation: Number = None
    first_update: Slope = Slope()
    update: Slope = Slope()
    activation: Slope = Slope()
    mended_rate: Number = None
    mended_weight: Number = None


def changes_rate(line: LayerPowers) -> bool:
    """Whether a layer would need another learning rate than it has: by more than what measured powers are off."""
    return line.mended_rate is not None and line.rate is not None and abs(line.mended_rate - line.rate) > OFF


@dataclass(frozen=True, kw_only=True)
class UnmeasuredSize:
    """A size that could not be measured, and why."""

    size: Count
    says: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Transfer(Measured):
    """Whether a learning rate holds as a network grows.

    Attributes:
        varied: "width" or "depth".
        widths: The sizes that were measured, ascending: widths, or depths.
        asked: Those that were asked for.
        seeds: Networks of each size.
        steps: How many the optimizer took.
        optimizer: With its settings.
        lr: Base learning rate.
        lr_chosen: Whether it was chosen here: a twentieth of the largest stable one of the smallest network.
        multipliers: Where each tensor's learning rate is from: "groups" of the optimizer, or "mup", the table of muP.
        weighted_at: Where the weighted curvature was measured: "start", or "after the steps", whose gradients an
            adaptive optimizer divides by.
        tolerance: Slopes up to this size count as none.
        residual: Largest residual of an eigenvalue, relative to it: its error is no larger.
        slopes: Of the network as a whole.
        sizes: What they are of.
        layers: Kinds of layers, in the order in which they are executed.
        transfers: Whether the weighted curvature and the activations of every layer hold; `None` where it cannot be
            told.
        failed: Sizes that could not be measured.
    """

    command: ClassVar[str] = "transfer"

    varied: Varied = "width"
    widths: tuple[Count, ...] = ()
    asked: tuple[Count, ...] = ()
    seeds: Count = 0
    steps: Count = 0
    optimizer: str = ""
    lr: Number = None
    lr_chosen: bool = False
    multipliers: Literal["groups", "mup"] = "groups"
    weighted_at: Literal["start", "after the steps"] = "start"
    tolerance: Real = 0.2
    residual: Number = None
    slopes: Slopes = Slopes()
    sizes: tuple[SizeMeans, ...] = ()
    layers: tuple[LayerPowers, ...] = ()
    transfers: bool | None = None
    failed: tuple[UnmeasuredSize, ...] = ()

    def __post_init__(self) -> None:
        """Sizes ascend, and each has its numbers."""
        ascending(widths=self.widths)
        same_length(widths=self.widths, sizes=self.sizes)
