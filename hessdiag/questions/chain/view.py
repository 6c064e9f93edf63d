"""The view of a `chain` result: typical sizes beside averages, the signs of curvature, the plateau."""

from collections.abc import Sequence
from typing import Literal

from hessdiag.questions.chain.result import AtLength, Chain, ChainPlateau, Magnitude, Sample, SignShares
from hessdiag.questions.common.ensembles.agreement_view import agreement_fact, agreement_table
from hessdiag.questions.common.view import computed
from hessdiag.report.numbers import MISSING, counted, number, percent, ratio, with_error
from hessdiag.report.view import Dots, Fact, Lines, Series, Table, View


def view(result: Chain) -> View:
    """Lay out a result of `chain`."""
    plateau = _plateau(result.plateau)
    agreement = agreement_table(
        result.agreement,
        lambda row: (row.quantity.replace("_", " "), row.statistic),
        "Agreement with theory",
        ("quantity", "statistic", "measured", "exact"),
        names=2,
    )
    return View(
        question="Which average does the initialization keep, and what does a typical network show?",
        subject=_subject(result),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(
            _output(result.lengths),
            _sizes(result),
            _derivatives(result.lengths),
            _scales(result),
            _inertia(result.inertia),
            *((plateau,) if plateau else ()),
        ),
        extra=(_averages(result), *agreement),
    )


def _subject(result: Chain) -> tuple[tuple[str, str], ...]:
    weights = "U[-{0}, {0}]" if result.distribution == "uniform" else "N(0, {0}²)"
    return (
        ("network", f"chain of length {number(result.length)}: v = product of its weights, loss (v - 1)²/2"),
        ("weights", weights.format(number(result.scale, 6))),
        ("averaged over", f"{number(result.seeds)} random chains"),
        computed(result.problem),
    )


def _headline(result: Chain) -> tuple[str, str]:
    return (
        number(result.theory_median_abs),
        f"is the exact median of |v|, while its mean is {number(result.theory_mean_abs)} and its root mean square "
        f"{number(result.theory_rms)}",
    )


def _facts(result: Chain) -> tuple[Fact, ...]:
    critical, definite = result.critical_scale, result.inertia.definite
    facts = [
        Fact(
            "measured median",
            with_error(result.median_abs, result.median_abs_stderr),
            "of |v|; the error is from order statistics",
        ),
        Fact(
            "chains above the mean",
            percent(result.theory_probability_above_mean),
            f"exact; measured {percent(result.probability_above_mean)}; far below 50 %, the mean is not typical",
        ),
        Fact(
            "median-keeping scale",
            number(critical.median_at_length, 5),
            f"at this length; {number(critical.rms, 5)} keeps the second moment",
        ),
        Fact("positive definite", percent(definite.theory), "of the Hessians, exact; the others have both signs"),
    ]
    return (*facts, *agreement_fact(result.agreement, "with exact values"))


def _output(lengths: Sequence[AtLength]) -> Lines:
    products = [entry.product for entry in lengths]
    low, high = tuple(size.q05 for size in products), tuple(size.q95 for size in products)
    series = [
        Series("median", tuple(size.median_abs for size in products), low, high, group=0),
        Series("median, exact", tuple(size.theory_median_abs for size in products), role="theory", group=0),
        Series("mean", tuple(size.mean_abs for size in products), group=1),
        Series("mean, exact", tuple(size.theory_mean_abs for size in products), role="theory", group=1),
        Series("root mean square", tuple(size.rms for size in products), group=2),
        Series("root mean square, exact", tuple(size.theory_rms for size in products), role="theory", group=2),
    ]
    return _lines(
        lengths,
        title="The output against the length",
        caption=(
            "Measured sizes of |v| in the first weights of the same chains, and the band that holds 90 % of them; "
            "dashed lines are exact. Where median and mean part, the mean is of ever rarer chains: in long chains even "
            "its measured value falls short, because no chain that makes it was drawn."
        ),
        alt=f"Median, mean and root mean square of |v| at {counted(len(lengths), 'length')}, measured and exact.",
        series=series,
        text="chart",
    )


def _derivatives(lengths: Sequence[AtLength]) -> Lines:
    entries: dict[str, Sequence[Sample | None]] = {
        "gradient entry": [entry.gradient for entry in lengths],
        "Hessian, diagonal": [entry.hessian_diagonal for entry in lengths],
        "off-diagonal": [entry.hessian_offdiagonal for entry in lengths],
    }
    series = [_medians(name, sizes, group) for group, (name, sizes) in enumerate(entries.items())]
    return _lines(
        lengths,
        title="Gradient and Hessian entries against the length",
        caption=(
            "Measured medians with a 90 % band. While outputs vanish, diagonal entries of the Hessian do so at twice "
            "the rate of the others, which leaves it hollow: eigenvalues of both signs, and no diagonal to scale by."
        ),
        alt=f"Median sizes of gradient and Hessian entries at {counted(len(lengths), 'length')}.",
        series=series,
        text="none",
    )


def _medians(name: str, sizes: Sequence[Sample | None], group: int) -> Series:
    """Medians with their bands; nothing where the chain is too short for such an entry."""
    median = tuple(None if size is None else size.median_abs for size in sizes)
    low = tuple(None if size is None else size.q05 for size in sizes)
    high = tuple(None if size is None else size.q95 for size in sizes)
    return Series(f"{name}: median", median, low, high, group=group)


def _lines(
    lengths: Sequence[AtLength],
    *,
    title: str,
    caption: str,
    alt: str,
    series: Sequence[Series],
    text: Literal["chart", "none"],
) -> Lines:
    rows = tuple(
        (number(entry.length), *(number(one.values[index], 4) for one in series)) for index, entry in enumerate(lengths)
    )
    return Lines(
        title=title,
        caption=caption,
        alt=alt,
        table=Table(title, ("length", *(one.name for one in series)), rows, text_columns=0),
        text=text,
        x=tuple(float(entry.length) for entry in lengths),
        series=tuple(series),
        x_axis="length (weights)",
        y_axis="absolute value",
    )


def _magnitudes(result: Chain) -> list[tuple[str, Magnitude]]:
    found = [("output v", result), ("gradient entry", result.gradient), ("Hessian, diagonal", result.hessian_diagonal)]
    return found if result.hessian_offdiagonal is None else [*found, ("off-diagonal", result.hessian_offdiagonal)]


def _sizes(result: Chain) -> Table:
    rows = tuple(
        (
            name,
            with_error(size.median_abs, size.median_abs_stderr),
            number(size.theory_median_abs, 4),
            number(size.theory_mean_abs, 3),
            number(size.theory_rms, 3),
            percent(size.theory_probability_above_mean),
        )
        for name, size in _magnitudes(result)
    )
    columns = ("absolute value of", "median", "exact", "mean", "rms", "reach mean")
    return Table(
        f"Sizes at length {number(result.length)}; what follows the median is exact",
        columns,
        rows,
        optional=("rms", "reach mean"),
    )


def _averages(result: Chain) -> Table:
    rows = tuple(
        (
            name,
            with_error(size.mean_abs, size.mean_abs_stderr),
            number(size.theory_mean_abs, 4),
            with_error(size.rms, size.rms_stderr),
            number(size.theory_rms, 4),
            percent(size.probability_above_mean),
            percent(size.theory_probability_above_mean),
        )
        for name, size in _magnitudes(result)
    )
    columns = ("absolute value of", "mean", "exact", "rms", "exact", "reach mean", "exact")
    return Table("Averages, whose measured errors are too small in long chains", columns, rows)


def _scales(result: Chain) -> Table:
    critical = result.critical_scale
    kept = (
        ("the second moment of v", critical.rms),
        ("the mean of |v|", critical.mean_abs),
        ("the median of |v|, this length", critical.median_at_length),
        ("the median of |v|, long chains", critical.median),
    )
    rows = tuple((name, number(scale, 6), ratio(result.scale, scale)) for name, scale in kept)
    return Table("Scales that keep one size or another", ("keeps", "scale", "per weight, at this scale"), rows)


def _inertia(inertia: SignShares) -> Dots:
    kinds = {
        "positive definite": inertia.definite,
        "one negative eigenvalue": inertia.one_negative,
        "one positive, others negative": inertia.one_positive,
    }
    shares = list(kinds.values())
    spread = [2 * (share.stderr or 0.0) for share in shares]
    measured = tuple(share.measured for share in shares)
    rows = tuple(
        (name, with_error(share.measured, share.stderr), number(share.theory, 4)) for name, share in kinds.items()
    )
    return Dots(
        title="Signs of the Hessian's eigenvalues",
        caption=(
            "Share of the chains whose Hessian is positive definite, has exactly one negative eigenvalue, or exactly "
            "one positive and at least two negative ones; there are no others. Intervals are two standard errors."
        ),
        alt="Measured and exact shares of the three kinds of Hessians.",
        table=Table("Signs of the Hessian's eigenvalues", ("Hessian", "share", "exact"), rows),
        text="table",
        labels=tuple(kinds),
        series=(
            Series(
                "measured",
                measured,
                tuple(None if m is None else m - s for m, s in zip(measured, spread, strict=True)),
                tuple(None if m is None else m + s for m, s in zip(measured, spread, strict=True)),
            ),
            Series("exact", tuple(share.theory for share in shares), role="theory", group=1),
        ),
        axis="share of the chains",
        log=False,
    )


def _plateau(plateau: ChainPlateau | None) -> Table | None:
    if plateau is None:
        return None
    rows = (
        ("gradient flow, time", number(plateau.flow_time, 4), number(plateau.theory_time, 4)),
        ("  its lower bound", MISSING, number(plateau.theory_time_bound, 4)),
        ("  blow-up of that bound", MISSING, number(plateau.theory_blow_up_time, 4)),
        ("gradient descent, steps", MISSING, _count(plateau.gradient_descent_steps)),
        ("RMSprop, steps", number(plateau.rmsprop_steps), f"≤ {number(plateau.theory_rmsprop_steps)}"),
        ("RMSprop, epsilon 1e-8", number(plateau.rmsprop_default_steps), MISSING),
    )
    start, end, rate = map(number, (plateau.start, plateau.output, plateau.learning_rate))
    title = f"From equal weights {start} to v = {end}, the steepest point (learning rate {rate})"
    return Table(title, ("optimizer", "simulated", "theory"), rows)


def _count(value: float | None) -> str:
    """A number of steps that was computed: whole while it is small."""
    return number(round(value)) if value is not None and abs(value) < 1e6 else number(value)
