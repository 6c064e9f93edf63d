"""The view of `check`: why will it not train?"""

from collections.abc import Sequence
from itertools import zip_longest

from hessdiag.questions.check.result import BROKEN, Check, Trial
from hessdiag.questions.common.view import subject
from hessdiag.report.names import shortened
from hessdiag.report.numbers import MISSING, counted, drawable, number, percent
from hessdiag.report.view import Block, Fact, Lines, Series, Table, View, without_empty

KEPT = ("layer", "kind", "signal", "varies", "gradient")  # columns of the layers that stay whatever is known
MOST = 24  # layers in the table; of more, the first, the last, those with a cause, and every so many between
OPTIONAL = ("units", "fan-in", "saturated", "gain", "update/weight")


def view(result: Check) -> View:
    """Lay out a result of `check`."""
    blocks = (
        _causes(result),
        _trial(result.trial),
        _layers(result),
        _signals(result),
        _steps(result),
        _not_looked_at(result),
    )
    return View(
        question="Why will it not train?",
        subject=(*subject(result.problem, as_it_came=True), *_optimizer(result)),
        headline=_headline(result),
        facts=_facts(result),
        blocks=tuple(block for block in blocks if block is not None),
        code=() if result.trial is None else tuple(result.trial.code.splitlines()),
    )


def _headline(result: Check) -> tuple[str, str]:
    if not result.causes:
        if result.trains is False and not result.trained:
            return "no cause found", "and yet its loss does not fall in the first steps"
        return "nothing found", "that would keep this network from training"
    first = result.causes[0]
    where = f" at layer {first.layer}" if first.layer else ""
    sure = "is why it will not train" if result.confidence >= BROKEN else "may keep it from training well"
    return first.id, f"{where.strip()} {sure}".strip()


def _optimizer(result: Check) -> tuple[tuple[str, str], ...]:
    step = result.step
    if step is None:
        return ()
    settings = {"lr": step.lr} | step.settings
    said = ", ".join(f"{name} {number(value)}" for name, value in settings.items() if value)
    stands_in = "" if step.given else "; stands in, as --optimizer named none"
    stands_in = f"; that of {step.origin}" if step.origin else stands_in
    return (("optimizer", f"{step.optimizer} ({said}){stands_in}"),)


def _facts(result: Check) -> tuple[Fact, ...]:
    output, step = result.output, result.step
    facts = []
    if output is not None:
        chance = output.chance if output.chance is not None else output.uniform
        facts.append(
            Fact(
                "loss",
                number(output.loss),
                "as it is" if chance is None else f"as it is; the best constant answer has {number(chance)}",
            )
        )
        facts.append(
            Fact("spread of outputs", number(output.spread), "standard deviation over classes, or over samples of one")
        )
    if step is not None and step.losses:
        facts.append(
            Fact(
                "after a few steps",
                number(step.losses[-1]),
                f"loss after {counted(len(step.losses) - 1, 'step')} of {step.optimizer}, on a copy",
            )
        )
        slope = f"; stable up to {number(step.lambda_threshold)}" if step.lambda_threshold is not None else ""
        facts.append(Fact("largest eigenvalue", number(step.lambda_max), f"of the Hessian{slope}"))
        facts.append(Fact("update", number(step.update_ratio), "of the weights' size in a step, median over layers"))
    return tuple(fact for fact in facts if fact.value != MISSING)


def _causes(result: Check) -> Table | None:
    causes = result.causes
    if not causes:
        return None
    layers = [layer.layer for layer in result.layers]
    names: dict[str, str] = dict(zip(layers, shortened(layers), strict=True))
    rows = tuple(
        (
            cause.id,
            names.get(cause.layer or "", cause.layer) or MISSING,
            number(cause.value),
            number(cause.threshold),
            percent(cause.confidence, 2),
            ", ".join(symptom.id for symptom in cause.symptoms) or MISSING,
        )
        for cause in causes
    )
    columns = ("cause", "layer", "value", "threshold", "confidence", "explains")
    return without_empty(Table("Causes", columns, rows, text_columns=2), kept=("cause", "value"))


def _trial(trial: Trial | None) -> Lines | None:
    if trial is None:
        return None
    before, after = trial.before.losses, trial.after.losses
    longest = max(len(before), len(after))
    if longest < 2:
        return None
    every = trial.steps / (longest - 1)
    x = tuple(round(every * index, 3) for index in range(longest))
    rows = tuple(
        (number(step), number(old), number(new)) for step, old, new in zip_longest(x, before, after, fillvalue=None)
    )
    ends = [
        ("accuracy at the end", percent(trial.before.accuracy), percent(trial.after.accuracy)),
        ("loss at the end", number(trial.before.final), number(trial.after.final)),
    ]
    shown = tuple(row for row in ends if row[1:] != (MISSING, MISSING))
    return Lines(
        title=f"The cure, tried: {trial.cure}",
        caption=f"{trial.says} Both were trained {counted(trial.steps, 'step')} with {trial.optimizer}, from the same "
        f"weights but for the cure. {trial.because}",
        alt=f"Loss of the network as it is and with the cure over {trial.steps} steps.",
        table=Table("Loss", ("step", "as it is", "with the cure"), (*shown, *rows)),
        text="chart",
        x=x,
        series=(
            Series("as it is", _padded(before, longest), group=0),
            Series("with the cure", _padded(after, longest), group=1),
        ),
        x_axis="step",
        y_axis="loss",
    )


def _padded(values: Sequence[float | None], length: int) -> tuple[float | None, ...]:
    shown = [value if drawable(value, log=True) else None for value in values]
    return (*shown, *[None] * (length - len(shown)))


def _layers(result: Check) -> Table | None:
    if not result.layers:
        return None
    names = shortened([layer.layer for layer in result.layers])
    shown = _shown(result)
    rows = tuple(
        (
            name,
            layer.kind,
            layer.activation or MISSING,
            number(layer.units),
            number(layer.fan_in),
            number(layer.signal_rms),
            number(layer.signal_variation),
            _share(layer.dead_fraction),
            _share(layer.saturated_fraction),
            number(layer.weight_gain),
            number(layer.gradient_rms) if layer.reached else "none",
            number(layer.update_ratio),
        )
        for index, (name, layer) in enumerate(zip(names, result.layers, strict=True))
        if index in shown
    )
    columns = (
        "layer",
        "kind",
        "then",
        "units",
        "fan-in",
        "signal",
        "varies",
        "dead",
        "saturated",
        "gain",
        "gradient",
        "update/weight",
    )
    some = "" if len(rows) == len(names) else f"; {len(rows)} of {len(names)} are shown"
    table = Table(f"Layers, as they are executed{some}", columns, rows, text_columns=3, optional=OPTIONAL)
    return without_empty(table, kept=KEPT)


def _shown(result: Check) -> set[int]:
    """Which layers are in the table."""
    count = len(result.layers)
    if count <= MOST:
        return set(range(count))
    named = {cause.layer for cause in result.causes} | {one.layer for cause in result.causes for one in cause.symptoms}
    spread = {round(index * (count - 1) / (MOST - 1)) for index in range(MOST)}
    return spread | {index for index, layer in enumerate(result.layers) if layer.layer in named}


def _share(value: float | None) -> str:
    return percent(value, 2) if value else MISSING


def _signals(result: Check) -> Lines | None:
    """How far the signal gets, and how far back the gradient."""
    on_the_way = [layer for layer in result.layers if layer.depth is not None]
    if len(on_the_way) < 2:
        return None
    names = shortened([layer.layer for layer in on_the_way])
    variation = tuple(layer.signal_variation for layer in on_the_way)
    gradient = tuple(layer.gradient_rms for layer in on_the_way)
    rows = tuple(
        (name, number(varies), number(slope)) for name, varies, slope in zip(names, variation, gradient, strict=True)
    )
    return Lines(
        title="How far the signal gets, and the gradient",
        caption="Variation between samples against the signal's size, after each layer: where it ends, the layers "
        "after it see the same for every sample. Root mean square of each layer's gradient: where it ends, the layers "
        "before it learn nothing.",
        alt="Signal variation and gradient, layer by layer.",
        table=Table("Signal and gradient", ("layer", "variation", "gradient"), rows),
        text="none",
        x=tuple(float(index + 1) for index in range(len(names))),
        series=(
            Series("variation between samples", variation, group=0),
            Series("gradient, root mean square", gradient, group=1),
        ),
        x_axis="layer",
        y_axis="variation; gradient",
        names=tuple(names),
    )


def _steps(result: Check) -> Lines | None:
    step = result.step
    if step is None or len(step.losses) < 2:
        return None
    losses = tuple(loss if drawable(loss, log=True) else None for loss in step.losses)
    rows = tuple((number(index), number(loss)) for index, loss in enumerate(step.losses))
    return Lines(
        title=f"The first steps of {step.optimizer}",
        caption="The loss on a copy of the network, before each step and after the last, on the batches in turn.",
        alt=f"Loss over {len(losses) - 1} steps, from {number(losses[0])} to {number(losses[-1])}.",
        table=Table("Loss", ("step", "loss"), rows),
        text="spark",
        x=tuple(map(float, range(len(losses)))),
        series=(Series("loss", losses),),
        x_axis="step",
        y_axis="loss",
    )


def _not_looked_at(result: Check) -> Block | None:
    if not result.not_looked_at:
        return None
    return Table("Not looked at", ("what, and why",), tuple((said,) for said in result.not_looked_at))
