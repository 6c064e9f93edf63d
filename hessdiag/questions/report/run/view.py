"""The view of a run: the ratio against its edge, curvature, loss and gradients over steps, and every look."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from hessdiag.questions.common.view import subject
from hessdiag.questions.report.run.record import Record
from hessdiag.questions.report.run.result import MonitoredRun, Track
from hessdiag.questions.report.run.verdict import SIGMAS, At, course, given_budget
from hessdiag.report.names import shortened
from hessdiag.report.numbers import MISSING, bounded, counted, number, percent, with_error
from hessdiag.report.view import Fact, Heat, Lines, Series, Table, View, without_empty

MOST_DRAWN = 400  # looks of a curve
MOST_ROWS = 40  # of a table
MOST_CELLS = 24  # of a map, across
STEP = "step of the optimizer"
WORDS = {
    "sharpness": "curvature that the optimizer sees, over the threshold of its settings then: 1 is the edge",
    "lambda_max": "the largest eigenvalue",
    "loss": "of the fixed batches",
    "gradient_norms": "norm of the gradient",
    "negative_curvature": "the lowest Ritz value: at least as low an eigenvalue is there",
    "trace": "by random signs",
    "diag_share": "share of the Hessian's absolute mass on its diagonal",
}


def view(result: MonitoredRun) -> View:
    """Lay out a run."""
    drawn = [_sharpness(result), _lambda_max(result), _loss(result), _gradients(result), _layers(result)]
    drawn += [_downward(result), _estimate(result, "trace"), _estimate(result, "diag_share")]
    return View(
        question="Where did curvature go along this training run?",
        subject=_subject(result),
        headline=_headline(result),
        facts=tuple(_facts(result)),
        blocks=(*(block for block in drawn if block is not None), *_gaps(result)),
        extra=(_looks(result),) if result.records else (),
    )


def _subject(run: MonitoredRun) -> tuple[tuple[str, str], ...]:
    own = run.optimizer
    settings = ", ".join(f"{key}={number(value)}" for key, value in (own.settings if own else {}).items())
    steps = [record.step for record in run.records]
    looked = f"{counted(run.looks, 'look')}, {number(run.skipped)} left out; every {run.every:,} steps or more"
    again = f"; taken up again after step {', '.join(f'{step:,}' for step in run.resumed)}" if run.resumed else ""
    return (
        *subject(run.problem),
        ("optimizer", f"{own.kind}({settings})" if own else "not known to the monitor"),
        ("steps", f"{steps[0]:,} to {steps[-1]:,}{again}" if steps else MISSING),
        ("looks", f"{looked}, budget {given_budget(run.budget)}"),
    )


def _headline(run: MonitoredRun) -> tuple[str, str]:
    said = run.findings[0].says if run.findings else ""
    for name, track in _tracks(run):
        if track.measured and name in ("sharpness", "lambda_max", "loss"):
            words = {"sharpness": "of the edge of stability", "lambda_max": "lambda_max", "loss": "loss"}[name]
            return _last(run, name), f"{words}, at step {track.at:,}. {said}"
    return f"{run.looks}", f"looks. {said}"


def _tracks(run: MonitoredRun) -> list[tuple[str, Track]]:
    held = {
        "sharpness": run.sharpness,
        "lambda_max": run.lambda_max,
        "loss": run.loss,
        "gradient_norms": run.gradient_norms,
        "negative_curvature": run.negative_curvature,
        "trace": run.trace,
        "diag_share": run.diag_share,
    }
    return [(name, track) for name, track in held.items() if track is not None]


def _facts(run: MonitoredRun) -> list[Fact]:
    return [
        Fact(name, _last(run, name), f"{WORDS[name]}; {number(track.smallest)} to {number(track.largest)}, all looks")
        for name, track in _tracks(run)
        if track.measured
    ]


def _last(run: MonitoredRun, name: str) -> str:
    return _cell(run.records, name, course(run, name)[-1].step)


def _cell(records: Sequence[Record], name: str, step: int) -> str:
    """A reading as it stands in tables: with its error, or as the bound that it is."""
    found = next((record.known(name) for record in records if record.step == step), None)
    if found is None:
        return MISSING
    value, reading = found
    return bounded(value, reading.bound, 3) if reading.bound else with_error(value, reading.stderr, 4)


def _thinned(looks: list[At], most: int) -> list[At]:
    """At most so many: of each stretch of a longer run the look with the largest value, so that no peak is lost."""
    if len(looks) <= most:
        return looks
    ends = [index * len(looks) // (most - 1) for index in range(most)]
    peaks = [max(looks[low:high], key=lambda at: at.value) for low, high in pairwise(ends)]
    return peaks if peaks[-1] is looks[-1] else [*peaks, looks[-1]]


def _omitted(looks: Sequence[At]) -> str:
    if len(looks) <= MOST_DRAWN:
        return ""
    return f" Of {len(looks):,} looks at most {MOST_DRAWN} are drawn: of each stretch the one with the largest value."


def _table(title: str, looks: list[At], columns: dict[str, list[str]]) -> Table:
    """Numbers of a chart, a row a step; of long runs some."""
    kept = {at.step for at in _thinned(looks, MOST_ROWS)}
    chosen = [index for index, at in enumerate(looks) if at.step in kept]
    rows = tuple((f"{looks[index].step:,}", *(cells[index] for cells in columns.values())) for index in chosen)
    some = f", {len(chosen)} of {len(looks):,} looks" if len(chosen) < len(looks) else ""
    return without_empty(Table(f"{title}{some}", ("step", *columns), rows), ("step",))


def _lines(
    looks: list[At],
    series: Sequence[Series],
    axis: str,
    words: tuple[str, str, str],
    columns: dict[str, list[str]],
    text: Literal["chart", "spark"] = "spark",
) -> Lines | None:
    """A chart over steps; nothing where nothing was measured.

    Args:
        looks: That have the quantity.
        series: A value at each of them.
        axis: What is drawn.
        words: Title, caption and what it is in one sentence.
        columns: Of the table, with a cell at each.
        text: How a terminal shows it.
    """
    if not looks:
        return None
    kept = {at.step for at in _thinned(looks, MOST_DRAWN)}
    chosen = [index for index, at in enumerate(looks) if at.step in kept]
    title, caption, alt = words
    ends = ", ".join(f"{number(at.value)} at step {at.step:,}" for at in (looks[0], looks[-1]))
    shown = tuple(
        Series(
            one.name,
            tuple(one.values[index] for index in chosen),
            tuple(one.low[index] for index in chosen) if one.low else (),
            tuple(one.high[index] for index in chosen) if one.high else (),
            one.role,
            one.group,
        )
        for one in series
        if any(value is not None for value in one.values)
    )
    return Lines(
        title=title,
        caption=caption + _omitted(looks),
        alt=f"{alt[:-1]}: {ends}.",
        table=_table(title, looks, columns),
        text=text if len(chosen) > 1 else "table",
        x=tuple(float(looks[index].step) for index in chosen),
        series=shown,
        x_axis=STEP,
        y_axis=axis,
    )


def _measured(name: str, looks: list[At], sigmas: float = 1.0) -> list[Series]:
    """A quantity with its errors; what is only a bound of it is marked besides."""
    values = tuple(at.value for at in looks)
    errors = [at.reading.stderr for at in looks]
    low = tuple(None if error is None else value - sigmas * error for value, error in zip(values, errors, strict=True))
    high = tuple(None if error is None else value + sigmas * error for value, error in zip(values, errors, strict=True))
    bounds = tuple(at.value if at.reading.bound else None for at in looks)
    banded = (low, high) if any(error is not None for error in errors) else ((), ())
    return [
        Series(name, values, *banded),
        Series("did not converge: a bound", bounds, role="points", group=3),
    ]


def _said_bounds(looks: Sequence[At]) -> str:
    count = sum(at.reading.bound is not None for at in looks)
    if not count:
        return ""
    are = "reading did not converge, and is a bound" if count == 1 else "readings did not converge, and are bounds"
    return f" {count} {are}: marked by triangles."


def _cells(run: MonitoredRun, looks: Sequence[At], name: str) -> list[str]:
    known = {record.step: record for record in run.records}
    return [_cell((known[at.step],), name, at.step) for at in looks]


def _sharpness(run: MonitoredRun) -> Lines | None:
    looks = course(run, "sharpness")
    caption = (
        "The largest curvature in the optimizer's metric, over what its settings of that step can take. Above 1 steps "
        "overshoot along the top eigenvector and grow; at the edge of stability the ratio stays about 1."
    )
    series = [*_measured("ratio", looks), Series("the edge", (1.0,) * len(looks), role="reference", group=1)]
    columns = {
        "ratio": _cells(run, looks, "sharpness"),
        "curvature": [number(at.reading.curvature, 4) for at in looks],
        "threshold": [number(at.reading.threshold, 4) for at in looks],
        "optimizer": [at.reading.optimizer or MISSING for at in looks],
    }
    words = (
        "Sharpness against the edge",
        caption + _said_bounds(looks),
        "Ratio of curvature to its threshold by step.",
    )
    return _lines(looks, series, "curvature / threshold", words, columns, "chart")


def _lambda_max(run: MonitoredRun) -> Lines | None:
    """The largest eigenvalue, with the threshold where that is one of it: not in an adaptive optimizer's metric."""
    looks = course(run, "lambda_max")
    sharp = {at.step: at.reading for at in course(run, "sharpness")}
    plain = bool(sharp) and all(at.step not in sharp or sharp[at.step].curvature == at.value for at in looks)
    thresholds = tuple(sharp[at.step].threshold if plain and at.step in sharp else None for at in looks)
    caption = "The largest eigenvalue of the Hessian."
    if plain:
        caption += " Gradient descent with these settings is stable below the dotted line."
    elif sharp:
        caption += " This optimizer's threshold is one of the curvature in its own metric, which the ratio above has."
    series = [*_measured("lambda_max", looks), Series("threshold", thresholds, role="reference", group=1)]
    columns = {
        "lambda_max": _cells(run, looks, "lambda_max"),
        "threshold": [number(value, 4) for value in thresholds],
        "products": [number(at.reading.products) for at in looks],
    }
    words = ("Largest eigenvalue", caption + _said_bounds(looks), "Largest eigenvalue by step.")
    return _lines(looks, series, "eigenvalue", words, columns)


def _loss(run: MonitoredRun) -> Lines | None:
    looks = course(run, "loss")
    words = ("Loss", "Of the monitor's fixed batches, not of training's own.", "Loss by step.")
    return _lines(looks, _measured("loss", looks), "loss", words, {"loss": _cells(run, looks, "loss")})


def _gradients(run: MonitoredRun) -> Lines | None:
    """The whole gradient, and the layers whose parts are the largest and the smallest at the end."""
    looks = course(run, "gradient_norms")
    layers = _by_size(looks)
    names = dict(zip(layers, shortened(layers), strict=True))
    ends = list(dict.fromkeys(layers[:1] + layers[-1:]))
    parts = {name: tuple((at.reading.layers or {}).get(name) for at in looks) for name in ends if len(layers) > 1}
    series = [
        *_measured("whole gradient", looks)[:1],
        *(Series(names[name], values, group=index + 1) for index, (name, values) in enumerate(parts.items())),
    ]
    columns = {"whole": _cells(run, looks, "gradient_norms")}
    columns |= {names[name]: [number(value, 4) for value in values] for name, values in parts.items()}
    which = ", and of the layers with the smallest and the largest part at the end" if parts else ""
    words = ("Gradient norms", f"Of the whole gradient{which}.", "Gradient norms by step.")
    return _lines(looks, series, "norm of the gradient", words, columns)


def _by_size(looks: Sequence[At]) -> list[str]:
    """Layers by their part of the last gradient, the smallest first."""
    last = dict(looks[-1].reading.layers or {}) if looks else {}
    return sorted(last, key=lambda name: last[name] or 0.0)


def _layers(run: MonitoredRun) -> Heat | None:
    looks = course(run, "gradient_norms")
    names = list(looks[-1].reading.layers or {}) if looks else []
    if len(names) < 2 or len(looks) < 2:
        return None
    across = _thinned(looks, MOST_CELLS)
    labels = shortened(names)
    matrix = tuple(tuple((at.reading.layers or {}).get(name) for at in across) for name in names)
    rows = tuple(
        (label, *(number(value) for value in (row[0], row[len(row) // 2], row[-1])))
        for label, row in zip(labels, matrix, strict=True)
    )
    shown = [f"step {across[index].step:,}" for index in (0, len(across) // 2, -1)]
    return Heat(
        title="Gradient norms, layer by layer",
        caption="Each row a layer, each column a look: a row that goes dark is a layer whose gradient vanishes.",
        alt="Norm of each layer's gradient by step.",
        table=Table("Gradient norms, layer by layer", ("layer", *shown), rows),
        text="none",
        labels=tuple(labels),
        matrix=matrix,
        axis="norm of the gradient",
        columns=tuple(f"{at.step:,}" for at in across),
        x_axis=STEP,
        y_axis="layer",
    )


def _downward(run: MonitoredRun) -> Lines | None:
    looks = course(run, "negative_curvature")
    sizes = tuple(-at.value if at.value < 0 else None for at in looks)
    proven = ["yes" if at.reading.proven else "no" for at in looks]
    columns = {"lowest Ritz value": _cells(run, looks, "negative_curvature"), "proven": proven}
    caption = "Size of the lowest Ritz value where it is negative: the lowest eigenvalue is at least as far below zero."
    words = ("Negative curvature", caption, "Size of negative curvature by step.")
    return _lines(looks, [Series("negative curvature", sizes)], "size of the negative curvature", words, columns)


def _estimate(run: MonitoredRun, name: str) -> Lines | None:
    """An estimate with its 95 % band."""
    looks = course(run, name)
    title = {"trace": "Trace", "diag_share": "Diagonal share"}[name]
    caption = f"{WORDS[name][0].upper()}{WORDS[name][1:]}, with a 95 % interval of each look."
    if any(at.value <= 0 for at in looks):
        caption += " What is not positive stands in the table alone."
    words = (title, caption, f"{title} by step.")
    columns = {title.lower(): _cells(run, looks, name)}
    return _lines(looks, _measured(title.lower(), looks, SIGMAS), title.lower(), words, columns)


def _gaps(run: MonitoredRun) -> list[Table]:
    """Looks that were left out, that lack something or that failed."""
    rows = [(f"{record.step:,}", *said) for record in run.records for said in _missing(record)]
    if not rows:
        return []
    some = f", the last {MOST_ROWS} of {len(rows):,}" if len(rows) > MOST_ROWS else ""
    return [Table(f"What was not measured{some}", ("step", "what", "why"), tuple(rows[-MOST_ROWS:]), text_columns=3)]


def _missing(record: Record) -> list[tuple[str, str]]:
    found = [("the whole look", record.skipped)] if record.skipped else []
    by_reason: dict[str, list[str]] = {}
    for name, why in (record.left_out or {}).items():
        by_reason.setdefault(why, []).append(name)
    found += [(", ".join(names), why) for why, names in by_reason.items()]
    found += [(f"{name} failed", why) for name, why in (record.failed or {}).items()]
    found += [(f"{name} was given up", "it failed too often") for name in record.gave_up or ()]
    return found + [(name, one.why) for name, one in record.readings.items() if one.value is None and one.why]


def _looks(run: MonitoredRun) -> Table:
    """What looks cost."""
    kept = run.records[-MOST_ROWS:]
    rows = tuple(
        (
            f"{record.step:,}",
            f"{len(record.readings)}" if record.skipped is None else "left out",
            number(record.products),
            number(record.seconds),
            percent(record.share, 2),
        )
        for record in kept
    )
    some = f", the last {MOST_ROWS} of {len(run.records):,}" if len(kept) < len(run.records) else ""
    columns = ("step", "quantities", "products", "seconds", "share of training's time, all looks")
    return Table(f"What looks took{some}", columns, rows)
