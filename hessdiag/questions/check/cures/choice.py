"""Which cures there are for which cause."""

from collections.abc import Callable

from hessdiag.questions.check.cures import attached, data, outputs, settings, weights
from hessdiag.questions.check.cures.cure import Cure, Setup
from hessdiag.questions.check.result import Cause, Check

MOST = 3  # cures of one cause that are tried

CURES: dict[str, Callable[[Check, Cause, Setup], list[Cure]]] = {
    "signal_lost": weights.fresh_weights,
    "signal_explodes": weights.fresh_weights,
    "gradient_vanishes": weights.fresh_weights,
    "gradient_explodes": weights.fresh_weights,
    "saturated_units": weights.fresh_weights,
    "weight_scale": weights.scaled_layer,
    "logit_scale": weights.smaller_logits,
    "dead_units": weights.revived,
    "identical_units": weights.fresh_layers,
    "loss_at_start": data.to_targets,
    "output_range": outputs.unbounded,
    "targets": data.targets_in_range,
    "input_scale": data.standard_inputs,
    "outputs_are_probabilities": outputs.logits,
    "output_broadcast": outputs.aligned,
    "normalization_untrained": settings.training_mode,
    "mode": settings.training_mode,
    "dropout": settings.less_dropout,
    "detached": attached.trained,
    "learning_rate_too_high": settings.smaller_steps,
    "updates_too_small": settings.larger_steps,
    "epsilon_floor": settings.smaller_epsilon,
    "weight_decay": settings.less_decay,
    "numeric_range": settings.wider_numbers,
}


def cures_of(found: Check, cause: Cause, setup: Setup) -> list[Cure]:
    """What may be tried for a cause, the likeliest to help first; nothing where only the user's own code can change.

    Args:
        found: What was read off the network.
        cause: What is to be mended.
        setup: A setup with a copy of the model, which is looked at and run.
    """
    known = CURES.get(cause.id)
    return known(found, cause, setup)[:MOST] if known is not None else []
