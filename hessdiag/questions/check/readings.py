"""What `check` reads off a network before it judges: numbers of one pass forward and back, and of a few steps.

Every number is of the actual weights, data, mode and loss. Rules in `causes` read these and nothing else.
"""

from dataclasses import dataclass

from hessdiag.fields import Count, Number, Numbers


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """One module that owns weights, in the order of execution; of several calls, the last that was seen.

    "Units" are channels of convolutions, features of others. "Over samples" is over the samples of the batch, each
    feature, position and pixel by itself.

    Attributes:
        layer: Its path in the model, or its class where it is the model; the name of a parameter that a module of
            several uses by itself. Weights that two modules share are read in both.
        kind: Its class.
        parameters: How many it owns.
        trainable: Whether any of them is differentiated.
        reached: Whether the loss reaches them: a gradient arrived, be it zero.
        calls: How often it was called in one forward pass.
        depth: Matrix products that data has passed with this one, counted from 1, along the longest way to the loss;
            `None` off that way: norms, shortcuts.
        activation: The nonlinearity that its output goes through next ("relu", "tanh", "sigmoid", "softmax", ...);
            `None` where it goes elsewhere.
        normalized: Whether a normalization takes its output before anything else does: its scale then has no effect.
        fan_in: Inputs of one unit; `None` for what multiplies by no matrix.
        units: Outputs of one position.
        rows: Positions, of all samples, at which it is computed in a call.
        input_rms: Root mean square of what goes in.
        input_variation: As `signal_variation`, of what goes in.
        output_rms: Root mean square of what it puts out, before the nonlinearity.
        output_mean: Mean of that.
        output_variation: As `signal_variation`, before the nonlinearity.
        signal_rms: Root mean square of what leaves it, after the nonlinearity. Where a normalization with weights of
            its own stands before that, the nonlinearity's numbers (signal, dead, saturated) are with the normalization.
        signal_variation: Root mean square over features of the standard deviation over samples, over `signal_rms`:
            1 where samples have nothing in common, 0 where they are all the same. Deviations are those of n - 1. After
            the nonlinearity.
        cosine: Mean cosine between samples of what leaves it.
        dead_fraction: Share of units that are exactly zero, or flat, for every sample and position, after a
            nonlinearity that has a dead side (relu, gelu, silu, ...); 0 for others.
        saturated_fraction: Share of entries at which a bounded nonlinearity (tanh, sigmoid, softmax, hardtanh, ...) has
            less than a hundredth of its greatest slope; of relu6 and its like, at the upper bound; of a softmax, share
            of distributions that are sure of one class.
        identical_fraction: Share of units whose incoming weights and bias equal those of an earlier unit to the bit.
        copies_part: Whether such units get gradients that differ, so that the next step parts them.
        weight_rms: Of its matrix; of all its parameters where it has none.
        weight_gain: `weight_rms` times the root of `fan_in`: how much a signal of independent entries grows.
        bias_mean: Mean of the bias; `None` without one.
        bias_rms: Of the bias.
        gradient_rms: Of the loss by its parameters.
        gradient_zero_fraction: Share of exact zeros in that.
        output_gradient_rms: Of the loss by its output, times the number of samples: what one sample sends back.
        input_gradient_rms: The same by its input.
        epsilon_share: Share of gradient entries below the optimizer's epsilon floor, exact zeros left out.
        update_ratio: Root mean square of the optimizer's first step over that of the weights.
    """

    layer: str
    kind: str
    parameters: Count
    trainable: bool = True
    reached: bool = True
    calls: Count = 1
    depth: Count | None = None
    activation: str | None = None
    normalized: bool = False
    fan_in: Count | None = None
    units: Count | None = None
    rows: Count = 0
    input_rms: Number = None
    input_variation: Number = None
    output_rms: Number = None
    output_mean: Number = None
    output_variation: Number = None
    signal_rms: Number = None
    signal_variation: Number = None
    cosine: Number = None
    dead_fraction: Number = None
    saturated_fraction: Number = None
    identical_fraction: Number = None
    copies_part: bool = False
    weight_rms: Number = None
    weight_gain: Number = None
    bias_mean: Number = None
    bias_rms: Number = None
    gradient_rms: Number = None
    gradient_zero_fraction: Number = None
    output_gradient_rms: Number = None
    input_gradient_rms: Number = None
    epsilon_share: Number = None
    update_ratio: Number = None


@dataclass(frozen=True, kw_only=True)
class InputReading:
    """One tensor that the model receives.

    Attributes:
        name: Its key in a mapping, else its place, "0".
        kind: "real" or "index".
        entries: Of one sample.
        rms: Root mean square of all entries.
        mean: Of all entries.
        stdev: Of all entries.
        low: The smallest entry.
        high: The largest.
        variation: Root mean square over entries of the standard deviation over samples, over `rms`.
        constant_share: Share of entries of a sample that are the same in every sample.
        duplicated_share: Share of the others that equal an earlier one in every sample.
        steepest: Largest standard deviation over samples of an entry, over the median of those that vary.
        taken_by: The first layer that receives it.
        normalized: Whether the first module that receives it normalizes: its scale then has no effect.
    """

    name: str
    kind: str
    entries: Count
    rms: Number = None
    mean: Number = None
    stdev: Number = None
    low: Number = None
    high: Number = None
    variation: Number = None
    constant_share: Number = None
    duplicated_share: Number = None
    steepest: Number = None
    taken_by: str | None = None
    normalized: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetReading:
    """The targets.

    Attributes:
        kind: "classes", "binary", "real" or "none" (the model computes its own loss of them).
        count: How many: samples, or tokens and pixels.
        classes: How many classes the output distinguishes; `None` for real ones.
        seen: How many of them occur.
        largest_share: Share of the commonest class.
        mean: Of real ones.
        stdev: Of real ones.
        low: The smallest.
        high: The largest.
        constant: Whether all are the same.
        neighbours_z: How many standard deviations more often than under random permutations neighbours among the inputs
            have like targets; `None` where it was not computed.
        neighbours_excess: How much more often, 0 to 1.
        neighbours_closeness: Distance of nearest neighbours over that of any two samples, by medians: near 1 where
            nothing is near anything, as in many independent features, and neighbours tell nothing.
        inputs_are_noise: Whether the inputs' features are no more correlated than those of independent noise.
    """

    kind: str
    count: Count
    classes: Count | None = None
    seen: Count | None = None
    largest_share: Number = None
    mean: Number = None
    stdev: Number = None
    low: Number = None
    high: Number = None
    constant: bool = False
    neighbours_z: Number = None
    neighbours_excess: Number = None
    neighbours_closeness: Number = None
    inputs_are_noise: bool | None = None


@dataclass(frozen=True, kw_only=True)
class OutputReading:
    """What the loss receives of the model, and the loss.

    Attributes:
        loss: At the weights as they are; no number where it is infinite or NaN.
        chance: The loss of the best constant output: entropy of the classes seen, variance of the targets; `None` where
            it is not known.
        uniform: The loss of an output that knows nothing: log C, log 2; the mean square of the targets for real ones.
        rms: Root mean square of the output.
        mean: Of the output.
        variation: As of a layer's signal.
        spread: Mean over samples of the standard deviation over classes; of real outputs, over samples.
        low: The smallest.
        high: The largest.
        probabilities: "softmax" (in [0, 1], classes sum to 1), "sigmoid" (in [0, 1]), "log_softmax" (exponentials
            sum to 1) or `None`.
        last: The last function that makes it, where that is known ("softmax", "relu", "tanh", ...).
        gradient_rms: Of the loss by the output, times the number of targets; `None` where no graph leads there.
        depends_on_output: Whether the loss changes with the output at all.
        broadcast: Whether output and target have different shapes that were broadcast against each other.
    """

    loss: Number
    chance: Number = None
    uniform: Number = None
    rms: Number = None
    mean: Number = None
    variation: Number = None
    spread: Number = None
    low: Number = None
    high: Number = None
    probabilities: str | None = None
    last: str | None = None
    gradient_rms: Number = None
    depends_on_output: bool = True
    broadcast: bool = False


@dataclass(frozen=True, kw_only=True)
class ModeReading:
    """A module whose behaviour hangs on its mode or on what it has seen.

    Attributes:
        layer: Its path.
        kind: Its class.
        training: Its mode.
        tracked: Batches that a normalization has seen; `None` for others, and where it keeps no count.
        mismatch: How far running statistics are from those of this batch: root mean square over channels of the
            difference of means in running standard deviations, plus 1; or of the logarithm of the ratio of standard
            deviations, as a factor: whichever is larger; 1 for equal ones.
        drop: Of dropout: its probability.
        samples: How many values one statistic of a normalization in training mode is of.
    """

    layer: str
    kind: str
    training: bool
    tracked: Count | None = None
    mismatch: Number = None
    drop: Number = None
    samples: Count | None = None


@dataclass(frozen=True, kw_only=True)
class RangeReading:
    """How the numbers lie in what their dtype holds.

    Attributes:
        dtype: Of the parameters.
        not_finite: The first module whose output is not finite though its input is; `None` where all is.
        largest: Largest absolute output of any layer, over the largest number of the dtype.
        zero_share: Share of gradient entries that are exactly zero and would not be in float32 (float64 for float32).
        subnormal_share: Share of gradient entries that are below the smallest normal number, but not zero.
    """

    dtype: str
    not_finite: str | None = None
    largest: Number = None
    zero_share: Number = None
    subnormal_share: Number = None


@dataclass(frozen=True, kw_only=True)
class OtherSetting:
    """A short run with one setting of the optimizer changed that may be to blame.

    Attributes:
        setting: "lr", "eps" or "weight_decay".
        value: What it was changed to.
        losses: As those of the step.
        fell: Whether they fall clearly.
    """

    setting: str
    value: float
    losses: Numbers
    fell: bool


@dataclass(frozen=True, kw_only=True)
class StepReading:
    """What the optimizer's first step does.

    Attributes:
        optimizer: Its name, as torch calls its class.
        given: Whether the user named it; else it stands in.
        lr: Learning rate of its first group.
        settings: Its other settings that matter: eps, momentum, betas, weight_decay.
        floor: Gradient below which its steps shrink with it; `None` where there is none.
        predicted: By how much the loss should fall by the gradient alone: minus g'd.
        before: Loss before.
        after: Loss after the step, on the same batch; no number where it is infinite or NaN.
        curvature: d'Hd/d'd along the step, by the two losses and the slope; `None` where rounding hides it.
        lambda_max: Largest eigenvalue of the Hessian, by a few products; `None` where it was not computed.
        lambda_threshold: The largest that this optimizer is stable at; `None` for those whose metric is not known here.
        update_ratio: Root mean square of the step over that of the weights, median of the layers that are trained.
        decay_ratio: Root mean square of what weight decay takes in a step over that of the rest of the step.
        decay_steps: Steps in which weight decay by itself takes the weights to an e-th.
        floor_leaves: Root mean square over gradient entries g of |g|/(|g| + floor): the part of a full step that is
            left below the floor; 1 far above it, `None` without a floor of entries.
        rounded_share: Share of weights with a gradient that the step leaves as they are to the bit: its change is
            rounded away.
        losses: Of the next steps, on the batches in turn, the first at the weights as they are; empty where time was
            short.
        others: Runs with one setting changed; none where nothing speaks for that, or time was short.
        origin: What of the model's own names it, if nobody else did.
    """

    optimizer: str
    given: bool
    lr: Number
    settings: dict[str, Number]
    floor: Number = None
    predicted: Number = None
    before: Number = None
    after: Number = None
    curvature: Number = None
    lambda_max: Number = None
    lambda_threshold: Number = None
    update_ratio: Number = None
    decay_ratio: Number = None
    decay_steps: Number = None
    floor_leaves: Number = None
    rounded_share: Number = None
    losses: Numbers = ()
    others: tuple[OtherSetting, ...] = ()
    origin: str | None = None
