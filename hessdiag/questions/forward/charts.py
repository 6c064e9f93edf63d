"""The charts of `forward`: norms, averages over medians, and gains, layer by layer."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

from hessdiag.fields import Number
from hessdiag.questions.forward.result import InitRatios, LayerGain, LayerRatio
from hessdiag.report.names import Name, shortened
from hessdiag.report.numbers import counted, number
from hessdiag.report.view import Lines, Series, Table, Values

L = TypeVar("L", LayerRatio, LayerGain)

MOST_NAMES = 16  # of layers along an axis


def norms(inits: Sequence[InitRatios]) -> Lines:
    """Medians, bands and root mean squares, measured and exact."""
    series: list[Series] = []
    for group, init in enumerate(inits):
        name, layers = init.init, init.layers
        low, high = tuple(layer.q05 for layer in layers), tuple(layer.q95 for layer in layers)
        series.append(Series(f"{name}: median", tuple(layer.median for layer in layers), low, high, group=group))
        rms = tuple(layer.rms for layer in layers)
        series.append(Series(f"{name}: root mean square", rms, role="mean", group=group))
        for said, exact in (
            ("exact median", tuple(layer.theory_median for layer in layers)),
            ("exact root mean square", tuple(layer.theory_rms for layer in layers)),
        ):
            if exact[-1] is not None:
                series.append(Series(f"{name}: {said}", exact, role="theory", group=group))
    return _lines(
        series,
        inits,
        title="Norm of the activations against depth"
        if inits[0].width is not None
        else "Experiment, fresh weights: norm of the activations against depth",
        caption=(
            "Bold lines are medians over networks, bands hold 90 % of them, dashed lines are root mean squares, and "
            "dash-dotted lines their exact values. A straight line is exponential decay or growth. Where root mean "
            "square and median part, a few networks carry the average, and the median is what one network will show."
        ),
        alt=f"Median, 90 % band and root mean square of norms, by layer: {counted(len(inits), 'initialization')}.",
        y_axis="over the input's",
        text="chart",
    )


def gaps(inits: Sequence[InitRatios]) -> Lines:
    """How many times the averages are larger than the median."""
    series: list[Series] = []
    for group, init in enumerate(inits):
        name, layers = init.init, init.layers
        rms = tuple(_quotient(layer.rms, layer.median) for layer in layers)
        series.append(Series(f"{name}: root mean square", rms, group=group))
        mean = tuple(_quotient(layer.mean, layer.median) for layer in layers)
        series.append(Series(f"{name}: mean", mean, role="mean", group=group))
        if init.last.theory_median is not None:
            exact = tuple(_quotient(layer.theory_rms, layer.theory_median) for layer in layers)
            series.append(Series(f"{name}: exact root mean square", exact, role="theory", group=group))
    return _lines(
        series,
        inits,
        title="How far the average runs ahead of a typical network",
        caption=(
            "Root mean square (bold) and mean (dashed) over median, layer by layer; 1 at the input. Where depth "
            "exceeds width, the measured root mean square falls behind the exact one (dash-dotted): the networks that "
            "carry it are too rare to be among those drawn. Initializations that draw from one distribution share "
            "their random numbers: with linear or (leaky) ReLU layers their lines coincide."
        ),
        alt="Root mean square and mean over median of the norm ratio in every layer, measured and exact.",
        y_axis="average / median",
        text="none",
    )


def gains(inits: Sequence[InitRatios]) -> Iterator[Lines]:
    """What a positively homogeneous network's norms say of the scale that would keep them, depth by depth."""
    series: list[Series] = []
    for group, init in enumerate(inits):
        if init.last.theory_rms is None:
            continue
        name = init.init
        middle, low, high = (_keeping(init, lambda layer: layer.log_median, errors) for errors in (0, 2, -2))
        series.append(Series(f"{name}: median 1", middle, low, high, group=group))
        if init.last.theory_median is not None:
            exact = _keeping(init, lambda layer: layer.theory_log_median)
            series.append(Series(f"{name}: exact", exact, role="theory", group=group))
        exact = _keeping(init, lambda layer: layer.theory_log_rms)
        series.append(Series(f"{name}: root mean square 1, exact", exact, role="mean", group=group))
    if series:
        yield _lines(
            series,
            inits,
            title="The factor of the weights that keeps a norm, by depth",
            caption=(
                "By what all weights would have to be multiplied for networks of so many layers to keep the norm of a "
                "typical one (bold, with two standard errors) or the mean square (dashed). The narrower a network, the "
                "further the two are apart: one factor cannot do both."
            ),
            alt="Factors of the weights that keep median or root mean square, at every depth.",
            y_axis="factor of the weights",
            text="none",
        )


def _keeping(init: InitRatios, log_of: Callable[[LayerRatio], Number], errors: float = 0.0) -> Values:
    """exp(-log / layer) of a log ratio, moved by some standard errors: the factor that scales it to 1."""
    logs = [_moved(log_of(layer), layer.log_median_stderr, errors) for layer in init.layers]
    return tuple(
        None if log is None else math.exp(min(-log / layer.layer, 700.0))
        for layer, log in zip(init.layers, logs, strict=True)
    )


def _moved(value: Number, stderr: Number, errors: float) -> Number:
    """A value and so many of its standard errors."""
    return None if value is None or stderr is None else value + errors * stderr


def kurtosis(inits: Sequence[InitRatios]) -> Iterator[Lines]:
    """How few networks carry the mean square, where theory knows it."""
    series: list[Series] = []
    for group, init in enumerate(inits):
        if init.last.theory_kurtosis is None:
            continue
        measured = tuple(layer.kurtosis for layer in init.layers)
        low, high = (
            tuple(_moved(layer.kurtosis, layer.kurtosis_stderr, errors) for layer in init.layers) for errors in (-2, 2)
        )
        series.append(Series(init.init, measured, low, high, group=group))
        exact = tuple(layer.theory_kurtosis for layer in init.layers)
        series.append(Series(f"{init.init}: exact", exact, role="theory", group=group))
    if series:
        yield _lines(
            series,
            inits,
            title="Fourth moment over the square of the second",
            caption=(
                "E r⁴ / (E r²)² of the norm ratio r, with two standard errors; 1 where all networks agree. It grows "
                "exponentially with depth at any scale of the weights, and the less the wider the network. Once the "
                "networks that carry it are too rare to be drawn, the measured value falls behind the exact one."
            ),
            alt="Kurtosis of the norm ratio in every layer, measured and exact.",
            y_axis="E r⁴ / (E r²)²",
            text="none",
        )


def layer_gains(inits: Sequence[InitRatios]) -> Iterator[Lines]:
    """The gains of single layers, where each has its own."""
    solved = [(init, gains) for init in inits if init.solution and (gains := init.solution.layers)]
    if solved:
        yield _lines(
            [
                Series(init.init, tuple(layer.gain for layer in gains), group=group)
                for group, (init, gains) in enumerate(solved)
            ],
            [init for init, _ in solved],
            title="Gain of each layer",
            caption="The factor of each layer's weights with which the signal keeps its size after that layer.",
            alt="The factor of each layer's weights, by layer.",
            y_axis="gain",
            text="none",
        )


def _quotient(upper: Number, lower: Number) -> Number:
    return upper / lower if upper is not None and lower else None


def _lines(
    series: Sequence[Series],
    inits: Sequence[InitRatios],
    *,
    title: str,
    caption: str,
    alt: str,
    y_axis: str,
    text: Literal["chart", "none"],
) -> Lines:
    layers = tuple(layer.layer for layer in inits[0].layers)
    names = names_of(inits[0].layers)
    rows = tuple(
        (number(layer), *(number(one.values[index], 4) for one in series)) for index, layer in enumerate(layers)
    )
    return Lines(
        title=title,
        caption=caption,
        alt=alt,
        table=Table(title, ("layer", *(one.name for one in series)), rows, text_columns=0),
        text=text,
        x=tuple(float(layer) for layer in layers),
        series=tuple(series),
        x_axis="layer, from the input",
        names=names if all(names) and len(names) <= MOST_NAMES else (),
        y_axis=y_axis,
    )


def names_of(layers: Sequence[L]) -> tuple[Name, ...]:
    """The names of a model's layers, shortened."""
    return shortened([layer.name or "" for layer in layers])
