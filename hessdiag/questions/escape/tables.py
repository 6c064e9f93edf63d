"""Tables of `escape`: the race, network by network, what the search cost, how trust regions went."""

import math
from collections import Counter
from collections.abc import Sequence

from hessdiag.fields import Number
from hessdiag.numbers import MISSING, number, percent
from hessdiag.questions.escape.result import Contender, Escape, Plateau, Prediction, Run
from hessdiag.questions.escape.summary import (
    best_scores,
    median,
    plain,
    plateau_of,
    prediction_of,
    ratio,
    rounded,
    runs_of,
    typical_run,
)
from hessdiag.questions.escape.unstable import unstable_of
from hessdiag.report.view import Table, without_empty

LARGE = 1e5  # steps, from which on they are written with an exponent
EXITS = ("interior", "boundary", "negative curvature", "limit")
KEPT = ("optimizer", "outcome", "lr", "steps", "backprops", "epochs", "seconds")
OPTIONAL = ("epochs", "best loss", "seconds")


def race(result: Escape) -> Table:
    """One row for each optimizer, in the order of their escapes."""
    rows = tuple(_row(result, contender) for contender in result.contenders)
    several = any(contender.runs > 1 for contender in result.contenders)
    middle = "; medians" if several else ""
    table = Table(
        f"Until the loss is below {plain(result.threshold)} of the reference{middle}",
        ("optimizer", "lr", "escaped", "steps", "backprops", "epochs", "seconds", "predicted steps", "best loss"),
        rows,
        optional=OPTIONAL,
    )
    return without_empty(table, kept=KEPT)


def _row(result: Escape, contender: Contender) -> tuple[str, ...]:
    runs = runs_of(result, contender)
    best = median(ratio(run.best_loss, plateau_of(result, run)) for run in runs)
    return (
        contender.optimizer,
        lr_of(contender),
        f"{contender.escaped} of {contender.runs}",
        whole(median(run.steps for run in runs)),
        whole(median(run.backprops for run in runs)),
        number(median(run.epochs for run in runs)),
        number(median(run.seconds for run in runs), 2),
        band(prediction_of(runs)),
        number(best),
    )


def lr_of(contender: Contender) -> str:
    """Its learning rate."""
    lr = contender.settings.get("lr")
    return f"{lr:g}" if isinstance(lr, (int, float)) and not isinstance(lr, bool) else MISSING


def whole(value: Number) -> str:
    """A count, or the median of some.

    >>> whole(18.0), whole(17.5), whole(None)
    ('18', '17.5', '–')
    """
    known = rounded(value)
    return f"{known:,g}" if isinstance(known, float) and abs(known) < LARGE else number(known)


def band(said: Prediction | None) -> str:
    """What was predicted, with its band, in steps.

    >>> band(Prediction(law="floor", typical=2600.4, low=1400.0, high=16000.0, says=""))
    '2,600 [1,400 to 16,000]'
    """
    if said is None or said.typical is None:
        return MISSING
    if math.isinf(said.typical):
        return "never" if said.low is None or math.isinf(said.low) else f"never [from {_steps(said.low)}]"
    return f"{_steps(said.typical)} [{_steps(said.low)} to {_steps(said.high)}]"


def _steps(value: Number) -> str:
    """Two digits, as a law gives no more; small counts in full.

    >>> _steps(22.4), _steps(2612.0), _steps(145637.0)
    ('22', '2,600', '1.5e5')
    """
    if value is None or not 0 <= value < LARGE:
        return (
            MISSING
            if value is None
            else "∞"
            if math.isinf(value)
            else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
        )
    scale = 10 ** max(math.floor(math.log10(max(value, 1.0))) - 1, 0)
    return number(round(value / scale) * scale)


def scores(result: Escape) -> Table:
    """Of a task that compares mean losses."""
    first, last = (percent(share, 2) for share in result.score_window or (0.0, 1.0))
    rows = []
    for contender, score in best_scores(result):
        runs = runs_of(result, contender)
        spent = [run.spent for run in runs]
        rows.append(
            (
                contender.optimizer,
                lr_of(contender),
                number(score, 4),
                number(median(run.final_loss for run in runs)),
                whole(median(one.steps for one in spent)),
                whole(median(one.backprops for one in spent)),
                number(median(one.seconds for one in spent), 2),
            )
        )
    columns = ("optimizer", "lr", "mean loss", "last loss", "steps", "backprops", "seconds")
    title = f"Mean loss from {first} to {last} of the steps"
    return without_empty(Table(title, columns, tuple(rows), optional=("last loss",)), kept=columns[:3])


def networks(result: Escape) -> Table | None:
    """Backpropagations until escape, network by network, or what became of the run."""
    seeds = list(dict.fromkeys(run.seed for run in result.runs))
    if len(seeds) < 2:
        return None
    rows = tuple(
        (
            contender.optimizer,
            *(
                _outcome(result, next((run for run in runs_of(result, contender) if run.seed == seed), None))
                for seed in seeds
            ),
        )
        for contender in result.contenders
    )
    what = "network by network" if len(result.plateaus) > 1 else "run by run"
    return Table(f"Backpropagations until escape, {what}", ("optimizer", *(f"seed {seed}" for seed in seeds)), rows)


def _outcome(result: Escape, run: Run | None) -> str:
    if run is None:
        return MISSING
    return whole(run.backprops) if run.escaped and run.backprops is not None else _ended(result, run)


def _ended(result: Escape, run: Run) -> str:
    """How a run went, in a word: one whose loss went up and down for its learning rate was not stuck."""
    return "unstable" if run.outcome == "stuck" and unstable_of(result, run) is not None else run.outcome


def stability(result: Escape) -> Table | None:
    """How near each came to what it stands, and what it took to see that."""
    rows = []
    for contender in result.contenders:
        run = typical_run(result, contender)
        found = None if run is None else run.stability
        known = [] if found is None else [ratio for ratio in found.ratio if ratio is not None]
        if found is None or not known:
            continue
        every = [one.stability.products for one in runs_of(result, contender) if one.stability is not None]
        ends = (plain(found.threshold), *(number(one) for one in (known[0], max(known), known[-1])))
        rows.append((contender.optimizer, lr_of(contender), *ends, whole(sum(every))))
    columns = ("optimizer", "lr", "stands", "first", "largest", "last", "products")
    title = "Learning rate x curvature, over what the optimizer stands; products are not counted above"
    return Table(title, columns, tuple(rows)) if rows else None


def further(result: Escape) -> Table | None:
    """When runs came below lower levels, and stayed there."""
    levels = sorted({milestone.level for run in result.runs for milestone in run.milestones}, reverse=True)
    levels = [level for level in levels if level != result.threshold]
    if not levels:
        return None
    rows = tuple(
        (contender.optimizer, *(whole(median(_reached(run, level) for run in runs)) for level in levels))
        for contender in result.contenders
        if (runs := runs_of(result, contender))
    )
    if all(cell == MISSING for row in rows for cell in row[1:]):
        return None
    columns = ("optimizer", *(f"below {plain(level)}" for level in levels))
    return Table("Further down: backpropagations until the loss is", columns, rows)


def _reached(run: Run, level: float) -> Number:
    return next((one.spent.backprops for one in run.milestones if one.level == level), None)


def search(result: Escape) -> Table | None:
    """What it cost to find learning rates: reported apart, as nothing of it is in the race."""
    rows = tuple(
        (
            contender.optimizer,
            ", ".join(f"{lr:g}" for lr in contender.searched if lr is not None),
            number(contender.search.backprops),
            number(contender.search.seconds, 2),
        )
        for contender in result.contenders
        if contender.searched
    )
    columns = ("optimizer", "tried", "backprops", "seconds")
    return Table("Search for learning rates, not counted above", columns, rows, text_columns=2) if rows else None


def notes(result: Escape) -> Table | None:
    """What explains how each did: of the runs, the one in the middle speaks for all."""
    rows = []
    for contender in result.contenders:
        run = typical_run(result, contender)
        said = dict.fromkeys((*contender.notes, *(run.notes if run is not None else ())))
        rows += [(contender.optimizer, note) for note in said]
    return Table("Why", ("optimizer", "note"), tuple(rows), text_columns=2) if rows else None


def regions(result: Escape) -> Table | None:
    """How trust regions and dampings went, over all runs."""
    rows = []
    for contender in result.contenders:
        known = [run.region for run in runs_of(result, contender) if run.region is not None]
        if not known:
            continue
        exits: Counter[str] = Counter()
        for region in known:
            exits.update(region.exits or {})
        ends = [one for one in (known[0].radius[:1], known[0].radius[-1:]) if one]
        rows.append(
            (
                contender.optimizer,
                number(sum(region.rejected for region in known)),
                _mean_share([region.untrusted for region in known]),
                " → ".join(number(end[0], 2) for end in ends) or MISSING,
                *(number(exits[name]) if exits else MISSING for name in EXITS),
            )
        )
    columns = ("optimizer", "rejected", "rho < 1/4", "radius", *EXITS)
    table = Table("Trust regions and dampings", columns, tuple(rows), optional=("limit", "interior"))
    return without_empty(table, kept=columns[:1]) if rows else None


def _mean_share(shares: Sequence[Number]) -> str:
    known = [share for share in shares if share is not None]
    return percent(sum(known) / len(known), 2) if known else MISSING


def plateaus(found: Sequence[Plateau]) -> Table:
    """Where each race starts."""
    rows = tuple(
        (
            number(one.seed),
            number(one.loss),
            number(one.constant_loss),
            number(one.gradient_norm),
            number(one.gradient_median),
            percent(one.gradient_zeros, 2),
            number(one.lowest),
            number(one.highest),
            "dead" if one.dead else "yes" if one.present else "no",
        )
        for one in found
    )
    columns = (
        "seed",
        "loss",
        "constant",
        "gradient",
        "median entry",
        "zeros",
        "lowest",
        "highest",
        "plateau",
    )
    return Table("Where the races start", columns, rows)


def runs(result: Escape) -> Table:
    """Every run."""
    rows = tuple(
        (
            run.optimizer,
            _ended(result, run),
            number(run.seed),
            whole(run.steps),
            whole(run.backprops),
            number(run.epochs),
            number(run.sample_passes),
            number(run.seconds, 2),
            band(run.predicted),
            number(run.spent.steps),
            number(run.spent.backprops),
            number(ratio(run.best_loss, plateau_of(result, run))),
            number(run.final_loss),
        )
        for run in result.runs
    )
    columns = (
        "optimizer",
        "outcome",
        "seed",
        "steps",
        "backprops",
        "epochs",
        "sample passes",
        "seconds",
        "predicted steps",
        "all steps",
        "all backprops",
        "lowest ratio",
        "last loss",
    )
    return without_empty(Table("Every run", columns, rows, text_columns=2), kept=columns[:5])
