"""What `escape` finds: which optimizers leave a plateau, when, at what cost, and what was predicted."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from hessdiag.fields import Count, Matrix, Number, Numbers, Real, same_length
from hessdiag.questions.common.result import ModelSubject, Result

Outcome = Literal["escaped", "stuck", "dead", "diverged", "stopped"]
State = Literal["plateau", "dead", "minimum", "trained", "slope"]
Settings = dict[str, float | int | str | bool | None]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a run, a search or a part of a run cost.

    Attributes:
        steps: Of the optimizer.
        gradients: Computed by autograd.
        products: With curvature.
        evaluations: Of the loss, without those that watch the run.
        backprops: Gradients and products, each counted as one.
        epochs: Samples that were drawn, over all samples: a batch counts once, however often it is used.
        sample_passes: Samples that went back through the network, over all samples.
        seconds: Of the process, without what watches the run.
    """

    steps: Count = 0
    gradients: Count = 0
    products: Count = 0
    evaluations: Count = 0
    backprops: Count = 0
    epochs: Real = 0.0
    sample_passes: Real = 0.0
    seconds: Real = 0.0


@dataclass(frozen=True, kw_only=True)
class Milestone:
    """When a run first reached a share of the reference loss, and stayed below it."""

    level: Real
    spent: Spent


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How many steps an escape should take.

    Attributes:
        law: Which: "gradient descent", "floor", "width", "growth", "chain".
        typical: Steps; infinite where it never happens.
        low: Lower end of the band.
        high: Upper end.
        says: The law with its numbers, in a sentence.
    """

    law: str
    typical: Number
    low: Number
    high: Number
    says: str


@dataclass(frozen=True, kw_only=True)
class Region:
    """How a trust region or a damping went, step by step.

    Attributes:
        backprops: At each step.
        radius: After it; or the damping.
        rho: Actual over predicted decrease.
        exits: How often the subproblem ended in which way.
        rejected: Steps that were not taken.
        untrusted: Share of steps with rho below a quarter.
    """

    backprops: Numbers = ()
    radius: Numbers = ()
    rho: Numbers = ()
    exits: dict[str, Count] | None = None
    rejected: Count = 0
    untrusted: Number = None

    def __post_init__(self) -> None:
        """One entry for each step."""
        same_length(backprops=self.backprops, radius=self.radius, rho=self.rho)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """How near a run came to what its optimizer stands: above 1, steps along the largest curvature grow.

    Attributes:
        steps: At which it was looked at.
        backprops: Spent by then.
        ratio: Learning rate times the largest eigenvalue of the Hessian in the optimizer's metric, over its threshold;
            of as many samples as a step sees, to within 5 %.
        loss: Of these samples, there.
        threshold: Of the optimizer: 2 of gradient descent, 38 of Adam.
        products: With the Hessian, that it took. They are not the run's, and are counted nowhere else.
    """

    steps: tuple[Count, ...] = ()
    backprops: tuple[Count, ...] = ()
    ratio: Numbers = ()
    loss: Numbers = ()
    threshold: Real = 2.0
    products: Count = 0

    def __post_init__(self) -> None:
        """One entry for each look."""
        same_length(steps=self.steps, backprops=self.backprops, ratio=self.ratio, loss=self.loss)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One optimizer on one network with one order of samples.

    Attributes:
        optimizer: Its name in the race.
        seed: Of the network, where that is drawn anew, and of the order of samples.
        settings: With which it ran.
        outcome: "escaped"; "stuck" above the threshold to the end of its budget; "dead" where the gradient became
            exactly zero; "diverged"; "stopped" by an interrupt or the time that was granted.
        escaped: Whether the loss fell below the threshold and stayed there.
        steps: Until then; `None` where it did not.
        backprops: The same in gradients and products.
        epochs: The same in samples drawn, over all samples.
        sample_passes: The same in samples that went back.
        seconds: The same in seconds.
        milestones: Other levels, with what they took.
        spent: In all.
        loss: On all samples, at each time that the run was watched; the first is before it.
        at: What had been spent then.
        final_loss: The last.
        best_loss: The smallest.
        score: Mean loss over a window of steps, where the task is compared by that.
        predicted: How many steps the escape should take; `None` where there is no law.
        region: Of a trust-region or damped method.
        stability: Along the run; `None` of an optimizer whose threshold is not known, and where it was not looked at.
        notes: What explains the outcome, each with its number.
    """

    optimizer: str
    seed: Count
    settings: Settings
    outcome: Outcome
    escaped: bool
    steps: Count | None
    backprops: Count | None
    epochs: Number
    sample_passes: Number
    seconds: Number
    milestones: tuple[Milestone, ...] = ()
    spent: Spent = Spent()
    loss: Numbers = ()
    at: tuple[Spent, ...] = ()
    final_loss: Number = None
    best_loss: Number = None
    score: Number = None
    predicted: Prediction | None = None
    region: Region | None = None
    stability: Stability | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """One loss at each time."""
        same_length(loss=self.loss, at=self.at)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One optimizer, over all seeds.

    Attributes:
        optimizer: Its name.
        kind: "first" order, or "second": with products.
        settings: With which all its runs were made.
        searched: Learning rates that were tried, in order.
        search: What that cost.
        escaped: How many runs.
        runs: Of how many.
        backprops: Median over all runs until escape, runs that did not escape as infinite; `None` where it is. Runs
            that were stopped before either are left out.
        floor: Gradient below which its epsilon takes over; `None` where there is none.
        notes: What explains how it does, each with its number.
    """

    optimizer: str
    kind: Literal["first", "second"]
    settings: Settings
    searched: Numbers = ()
    search: Spent = Spent()
    escaped: Count = 0
    runs: Count = 0
    backprops: Number = None
    floor: Number = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The way of gradient flow off a plateau, along the network itself in steps that grow where it is straight.

    Gradient descent with the learning rate lr is at `time` after `time / lr` steps, whatever lr is.

    Attributes:
        time: Since the start.
        loss: Then.
        gradient: Median size of the gradient's entries then, zeros left out.
        travelled: Length of the way so far, over the norm of the weights at its start.
        ended: "out" where the plateau was left; "dead" where the gradient became exactly zero; "unfinished" where the
            gradients that it may take did not do, and the plateau lasts longer than the last time; "late" where it may
            take fewer for want of time, so that another run with the same seed may come to another end.
        gradients: What it took.
    """

    time: Numbers
    loss: Numbers
    gradient: Numbers
    travelled: Numbers
    ended: Literal["out", "dead", "unfinished", "late"]
    gradients: Count

    def __post_init__(self) -> None:
        """One entry for each time."""
        same_length(time=self.time, loss=self.loss, gradient=self.gradient, travelled=self.travelled)


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Where a race starts, on all samples.

    Attributes:
        seed: Of the network.
        loss: There.
        constant_loss: Of the best constant output; `None` where that is not known.
        floor: Loss that no model is below, where the task knows it.
        reference: The smaller of the first two: what an escape is measured against, as a share of the way from the
            floor to it.
        gradient_norm: Euclidean.
        gradient_median: Of the sizes of its entries, zeros left out.
        gradient_zeros: Share of entries that are exactly zero.
        matrix_median: Median Frobenius norm of the gradients of single weight matrices, zeros left out.
        matrices: How many weight matrices there are.
        weight_norm: Euclidean, of all parameters.
        lowest: Smallest eigenvalue of the Hessian; `None` where it was not measured.
        highest: Largest.
        flow: How gradient flow leaves it; `None` where that was not followed.
        present: Whether this is a plateau: once a constant output is learnt, the gradient hardly moves the loss.
        dead: Whether outputs do not depend on samples and no gradient can change that: no optimizer mends it.
        state: "plateau"; "dead"; "minimum" without a way down; "trained" where the loss is below that of any constant;
            "slope" where it falls at once.
        begins: Steps of gradient descent that learn the constant, before all else that is told here but the losses; 0
            where that is told of the start itself.
        silent: Of a dead network, parameters whose gradient is exactly zero in all entries.
        says: In a sentence.
    """

    seed: Count
    loss: Real
    constant_loss: Number
    reference: Real
    floor: Real = 0.0
    gradient_norm: Real
    gradient_median: Number
    gradient_zeros: Real
    matrix_median: Number = None
    matrices: Count = 0
    weight_norm: Real = 0.0
    lowest: Number = None
    highest: Number = None
    flow: Flow | None = None
    present: bool = False
    dead: bool = False
    state: State = "slope"
    begins: Count = 0
    silent: tuple[str, ...] = ()
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """The loss in the plane of the gradient and of the most negative eigenvector, through where the race starts.

    Attributes:
        along_gradient: Steps along the normalized negative gradient, in units of the weights' norm.
        along_curvature: The same along the eigenvector of the smallest eigenvalue.
        loss: At each pair, rows along the curvature; `None` where it is no number.
    """

    along_gradient: Numbers
    along_curvature: Numbers
    loss: Matrix


@dataclass(frozen=True, kw_only=True)
class Escape(Result):
    """A race of optimizers off a plateau.

    Attributes:
        threshold: Share of the reference loss below which a run has escaped.
        budget: Backpropagations that each run may take.
        named: Whether the optimizers were named by who asked, and are not the usual ones.
        escaped: Share of the runs that escaped; `None` where none was made.
        score_window: Shares of a run's steps over which its score is the mean loss; `None` where that is not compared.
        plateaus: Where the race starts, one for each network.
        contenders: The optimizers, in the order of their escapes.
        runs: All runs that were made, as far as they came.
        landscape: Of the first network; `None` where it was not asked for.
        frozen: What was kept from changing: running statistics, dropout masks.
        too_slow: Optimizers that were left out for lack of time, with the reason.
    """

    command: ClassVar[str] = "escape"

    problem: ModelSubject = ModelSubject()  # noqa: RUF009 - frozen
    threshold: Real = 0.9
    budget: Count = 0
    named: bool = False
    escaped: Number = None
    score_window: tuple[Real, Real] | None = None
    plateaus: tuple[Plateau, ...] = ()
    contenders: tuple[Contender, ...] = ()
    runs: tuple[Run, ...] = ()
    landscape: Landscape | None = None
    frozen: tuple[str, ...] = ()
    too_slow: tuple[str, ...] = ()
