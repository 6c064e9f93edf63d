"""Figures of a `vanishing` result: norms against depth, rates per layer, and the layers of the deepest network."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from hessdiag.numbers import factor, factor_of_log
from hessdiag.questions.vanishing.result import DepthNorms, LayerNorms, NormStatistics, Rate, Vanishing, statistics_of
from hessdiag.report.numbers import MISSING, counted, drawable, number, with_error
from hessdiag.report.view import Dots, Lines, Series, Table

NAMES = {
    "gradient": "gradient",
    "first_layer_gradient": "first layer's gradient",
    "last_layer_gradient": "last layer's gradient",
    "hessian": "Hessian",
    "hessian_diagonal_blocks": "Hessian's diagonal blocks",
    "hessian_offdiagonal_blocks": "Hessian's off-diagonal blocks",
    "vjp": "backpropagated vector",
}
BANDS = " Bands hold 90 % of the networks, where there are enough to know that."


def whole(depths: Sequence[DepthNorms]) -> Lines:
    """Norms of the gradient and the Hessian, and of what reaches the first layer where that is known apart."""
    caption = (
        "Bold lines are medians over networks, dashed lines are means. A "
        "straight line is exponential decay or growth. Where mean and median part, the mean is carried by a "
        "few networks, and the median is what one network will show."
    )
    first = ("first_layer_gradient",) if any(entry.first_layer_gradient_norm for entry in depths) else ()
    return _norms(depths, ("gradient", "hessian", *first), "Norms against depth", caption, text="chart")


def blocks(depths: Sequence[DepthNorms]) -> Lines:
    """Norms of the Hessian's blocks on and off the diagonal."""
    caption = (
        "The Hessian split into the blocks of one layer with itself and those of two different layers. Where "
        "the off-diagonal blocks dominate, the Hessian is nearly hollow: its eigenvalues come in pairs of "
        "both signs, and there is next to no diagonal to scale steps by."
    )
    pair = ("hessian_diagonal_blocks", "hessian_offdiagonal_blocks")
    return _norms(depths, pair, "The Hessian's blocks against depth", caption, text="none")


def _norms(
    depths: Sequence[DepthNorms], quantities: Sequence[str], title: str, caption: str, *, text: Literal["chart", "none"]
) -> Lines:
    series = [one for group, quantity in enumerate(quantities) for one in _series(depths, quantity, group)]
    banded = any(drawable(value, log=True) for one in series for value in one.low)
    shown = "Median, mean and 90 % band" if banded else "Median and mean"
    *names, other = (NAMES[quantity] for quantity in quantities)
    rows = tuple(
        (number(entry.depth), *(number(one.values[index]) for one in series)) for index, entry in enumerate(depths)
    )
    return Lines(
        title=title,
        caption=caption + BANDS * banded,
        alt=f"{shown} of the norms of {', '.join(names)} and {other}.",
        table=Table("Norms against depth", ("depth", *(one.name for one in series)), rows, text_columns=0),
        text=text,
        x=tuple(float(entry.depth) for entry in depths),
        series=tuple(series),
        x_axis="depth (weight matrices)",
        y_axis="Frobenius norm",
    )


def _series(depths: Sequence[DepthNorms], quantity: str, group: int) -> list[Series]:
    name, norms = NAMES[quantity], [statistics_of(entry, quantity) for entry in depths]
    mean = tuple(None if norm is None else norm.mean for norm in norms)
    found = [_medians(f"{name}: median", norms, group), Series(f"{name}: mean", mean, role="mean", group=group)]
    theory = tuple((entry.theory_rms or {}).get(quantity) for entry in depths)
    if any(value is not None for value in theory):
        found.append(Series(f"{name}: rms in theory", theory, role="theory", group=group))
    return found


def _medians(name: str, norms: Sequence[NormStatistics | None], group: int) -> Series:
    """Medians with the band of 90 %."""
    found = [_spread(norm) for norm in norms]
    middle, low, high = (tuple(one[which] for one in found) for which in range(3))
    return Series(name, middle, low, high, group=group)


def _spread(norm: NormStatistics | None) -> tuple[float | None, float | None, float | None]:
    """Median, and the quantiles around it."""
    return (None, None, None) if norm is None else (norm.median, norm.q05, norm.q95)


def layers(entries: Sequence[LayerNorms]) -> Lines | None:
    """Norms layer by layer; `None` of no layers."""
    if not entries:
        return None
    columns: dict[str, list[NormStatistics | None]] = {
        "gradient": [entry.gradient_norm for entry in entries],
        "Hessian block": [entry.hessian_block_norm for entry in entries],
    }
    banded = any(norms[0] is not None and drawable(norms[0].q05, log=True) for norms in columns.values())
    shown = ("median", "5 %", "95 %") if banded else ("median",)
    rows = tuple(
        (
            number(entry.layer),
            *map(number, _spread(entry.gradient_norm)[: len(shown)]),
            *map(number, _spread(entry.hessian_block_norm)[: len(shown)]),
        )
        for entry in entries
    )
    return Lines(
        title="Layer by layer in the deepest network",
        caption=(
            "Norm of each layer's gradient and of its diagonal Hessian block: median over networks. A level line "
            "means that every layer gets the same signal, so that vanishing is a matter of the whole depth "
            "and not of the distance from the loss." + BANDS * banded
        ),
        alt=f"Median gradient and Hessian block norms of {counted(len(entries), 'layer')}, logarithmic.",
        table=Table(
            "Norms per layer",
            ("layer", *(f"{name} {what}" for name in columns for what in shown)),
            rows,
            text_columns=0,
        ),
        text="spark",
        x=tuple(float(entry.layer) for entry in entries),
        series=(
            *(_medians(name, norms, group) for group, (name, norms) in enumerate(columns.items())),
            *_exact_by_layer(entries),
        ),
        x_axis="layer, from the input",
        y_axis="Frobenius norm",
    )


def _exact_by_layer(entries: Sequence[LayerNorms]) -> Iterator[Series]:
    """Exact root mean squares of what each layer has, where they are known."""
    for group, (quantity, name) in enumerate((("gradient", "gradient"), ("hessian_block", "Hessian block"))):
        exact = tuple((entry.theory_rms or {}).get(quantity) for entry in entries)
        if any(value is not None for value in exact):
            yield Series(f"{name}: rms in theory", exact, role="theory", group=group)


def rates(result: Vanishing) -> Dots | None:
    """Rates per layer beside theory; `None` where there are none."""
    found = [
        (quantity, rate)
        for quantity in NAMES
        if (rate := result.rates.get(quantity)) is not None and rate.per_layer is not None
    ]
    if not found:
        return None
    first, last = between(result)
    rows = tuple(
        (
            NAMES[quantity],
            *(number(median(statistics_of(entry, quantity))) for entry in (first, last)),
            per_layer(rate),
            limit(rate.theory_per_layer),
            with_error(rate.per_layer, rate.per_layer_stderr),
        )
        for quantity, rate in found
    )
    apart = last.depth - first.depth
    whose = f": the {number(apart)}-th root of second over first" if apart > 1 else ""
    known = any(rate.theory_per_layer is not None for _, rate in found)
    beside = " Theory is the large-depth limit; at finite depth a small difference is expected." if known else ""
    return Dots(
        title="Rates per layer",
        caption=(
            "By how much the logarithm of the median norm changes with each further layer (natural "
            f"logarithm), with two standard errors; 0 neither vanishes nor explodes.{beside}"
        ),
        alt=f"Measured rates per layer of {counted(len(found), 'norm')}{' beside theory' if known else ''}.",
        table=Table(
            f"Medians at both depths and their change per layer{whose}",
            (
                "norm",
                f"depth {number(first.depth)}",
                f"depth {number(last.depth)}",
                "per layer",
                "in theory",
                "log per layer",
            ),
            rows,
            optional=("log per layer", "in theory"),
        ),
        text="table",
        labels=tuple(NAMES[quantity] for quantity, _ in found),
        series=_measured_and_theory([rate for _, rate in found]),
        axis="change of log median norm per layer",
        log=False,
    )


def _measured_and_theory(rates: Sequence[Rate]) -> tuple[Series, ...]:
    spread = [2 * (rate.per_layer_stderr or 0.0) for rate in rates]
    measured = Series(
        "measured",
        tuple(rate.per_layer for rate in rates),
        tuple(rate.per_layer - s for rate, s in zip(rates, spread, strict=True)),
        tuple(rate.per_layer + s for rate, s in zip(rates, spread, strict=True)),
    )
    theory = tuple(rate.theory_per_layer for rate in rates)
    if all(value is None for value in theory):
        return (measured,)
    return measured, Series("theory, large depth", theory, role="theory", group=1)


def between(result: Vanishing) -> tuple[DepthNorms, DepthNorms]:
    """The depths between which rates are taken; of a document without any, the first and the last."""
    known = next((rate for rate in result.rates.values() if rate.from_depth is not None), None)
    if known is not None:
        found = [entry for entry in result.depths if entry.depth in (known.from_depth, known.to_depth)]
        if len(found) == 2:
            return found[0], found[1]
    return result.depths[0], result.depths[-1]


def median(value: NormStatistics | float | None) -> float | None:
    """A median; `None` where no network was live."""
    found = value.median if isinstance(value, NormStatistics) else value
    return None if found is None or math.isnan(found) else found


def per_layer(rate: Rate) -> str:
    """The factor per layer of a rate, which is a natural logarithm per layer, with its standard error."""
    return MISSING if rate.per_layer is None else factor_of_log(rate.per_layer, rate.per_layer_stderr)


def limit(log: float | None) -> str:
    """The same factor in theory, which has no error."""
    return MISSING if log is None else factor(math.exp(min(log, 700.0)), 4)
