"""What becomes of the batch in the model as it is, with its own weights."""

from dataclasses import dataclass

from hessdiag.fields import Count, Number


@dataclass(frozen=True, kw_only=True)
class OwnLayer:
    """One module with weight matrices, in the order of the first calls.

    A variation is the root mean square over entries of the standard deviation over samples, over the root mean square
    of the same signal: 1 where samples have nothing in common, 0 where they are all the same.

    Attributes:
        name: Its path in the model, or its class where it is the model.
        units: Outputs of one position: channels of a convolution, features of others.
        input_units: Of what goes in, likewise; `None` where that is no real tensor.
        input_rms: Root mean square of what goes in; `None` likewise.
        input_variation: Of what goes in; `None` likewise, of a signal of zeros, and of a single sample.
        input_zero_units: Share of the units of what goes in that are exactly zero for every sample.
        rms: Root mean square of the output, before its activation.
        variation: Of the output, before its activation; `None` as of what goes in.
        highest: The largest output.
        alike: Whether all units put out the same, though samples differ.
        zero_weights: Whether all its weights are exactly zero.
        bias_mean: Mean of its bias; `None` without one.
    """

    name: str
    units: Count
    input_units: Count | None = None
    input_rms: Number = None
    input_variation: Number = None
    input_zero_units: Number = None
    rms: Number
    variation: Number
    highest: Number = None
    alike: bool = False
    zero_weights: bool = False
    bias_mean: Number = None

    @property
    def input_spread(self) -> Number:
        """Standard deviation over samples of what goes in."""
        return _spread(self.input_rms, self.input_variation)

    @property
    def spread(self) -> Number:
        """The same of the output."""
        return _spread(self.rms, self.variation)


@dataclass(frozen=True, kw_only=True)
class OwnSignal:
    """One pass of all batches through the model as it is.

    Attributes:
        samples: In all batches.
        layers: In the order in which they are called; none where the model calls no module with weight matrices.
        output_rms: Root mean square of the model's output; `None` where it is no tensor with one entry per sample.
        output_variation: As of a layer.
        batch_statistics: How many BatchNorm layers came in training mode, and normalized by their batch here.
        unseen_norms: How many BatchNorm layers are in evaluation mode and have never seen data.
    """

    samples: Count
    layers: tuple[OwnLayer, ...]
    output_rms: Number = None
    output_variation: Number = None
    batch_statistics: Count = 0
    unseen_norms: Count = 0

    @property
    def first(self) -> OwnLayer | None:
        """The first layer that real numbers go into."""
        return next((layer for layer in self.layers if layer.input_rms is not None), None)

    @property
    def last(self) -> OwnLayer | None:
        """The layer that is called last, if real numbers go into it."""
        last = self.layers[-1] if self.layers else None
        return None if last is None or last.input_rms is None else last


def _spread(rms: Number, variation: Number) -> Number:
    return None if rms is None or variation is None else rms * variation
