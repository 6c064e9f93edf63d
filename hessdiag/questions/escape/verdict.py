"""What a race off a plateau means: who leaves, who does not and why, and whether it went as predicted."""

from collections.abc import Iterable, Sequence

from hessdiag.numbers import MISSING, counted, listed, number, percent
from hessdiag.questions.common.adaptive_verdict import smaller_epsilon
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import data_findings, most_severe_first
from hessdiag.questions.escape.result import Contender, Escape, Run
from hessdiag.questions.escape.starts import dead_findings, no_plateau_findings
from hessdiag.questions.escape.summary import (
    best_scores,
    compared_by_score,
    ended,
    held,
    on_plateau,
    plain,
    plateau_of,
    predicted_later,
    prediction_of,
    ratio,
    rounded,
    runs_of,
    solved,
)
from hessdiag.questions.escape.tables import band, lr_of
from hessdiag.questions.escape.unstable import unstable_findings, unstable_of

WRONG = 0.5  # share of steps with rho below a quarter from which on a model of second order is not to be trusted
TRY = " Try "  # what a note starts its way out with
NAMED = 3  # of stuck optimizers without a reason of their own that are named in one sentence


@most_severe_first
def findings(result: Escape) -> list[Finding]:
    """The verdict on a race, the most important sentence first."""
    found = _stopped(result)
    if not result.runs:
        return found
    if compared_by_score(result):
        failed = (*unstable_findings(result), *_killed(result))
        return [*_by_score(result), *found, *failed, *data_findings(result.problem)]
    dead = dead_findings(result)
    if result.plateaus and all(plateau.dead for plateau in result.plateaus):
        return [*dead, *found, *data_findings(result.problem)]
    return [
        *dead,
        *unstable_findings(result),
        *_first(result),
        *no_plateau_findings(result),
        *_stuck(result),
        *_killed(result),
        *_diverged(result),
        *_law(result),
        *_later(result),
        *_untrusted(result),
        *found,
        *data_findings(result.problem),
    ]


def _stopped(result: Escape) -> list[Finding]:
    """What an interrupt or the time that was granted left out."""
    found = []
    if result.interrupted:
        made = counted(len(result.runs), "run")
        found.append(
            Finding(
                "note",
                f"Interrupted: {made} stand here as far as they came; nothing is said of others.",
                "runs that were finished are whole",
                "the same command with more time, or fewer --seeds",
            )
        )
    cut = [run for run in result.runs if run.outcome == "stopped"]
    if result.too_slow or (cut and not result.interrupted):
        names = ", ".join(dict.fromkeys(run.optimizer for run in cut))
        left = counted(len(result.too_slow), "entry", "entries")
        said = [f"stopped while it ran: {names}"] * bool(names and not result.interrupted) + [
            f"left out: {left}, see the table"
        ] * bool(result.too_slow)
        short = "The time that was granted was too short for all of it."
        found.append(
            Finding(
                "note",
                "Some was left out for lack of time, before the interrupt." if result.interrupted else short,
                "; ".join(said),
                "--time-budget 600, or fewer --seeds; --optimizer names who runs",
            )
        )
    return found


def _first(result: Escape) -> list[Finding]:
    """Who leaves, and which of them is worth training with; or that nobody does."""
    through = [one for one in result.contenders if one.backprops is not None]
    if not through:
        whole = [run for run in result.runs if ended(run)]
        gone = all(  # which is said of each
            run.outcome in ("diverged", "dead") or unstable_of(result, run) is not None for run in whole
        )
        return [] if gone else [_nobody(result, whole)]
    first = through[0]
    says = (
        f"{first.optimizer} gets through first, in {counted(rounded(first.backprops), 'backpropagation')}{_of(first)}."
    )
    quick = next((one for one in through if one.kind == "first"), None)
    others = ", ".join(f"{one.optimizer} {number(rounded(one.backprops))}" for one in through[1:])
    because = f"then {others}" if others else _no_other(result) if len(result.contenders) > 1 else _best(result, first)
    if quick is None:
        return [Finding("ok", says, because, f"train with {_call(first)} until the loss falls, then with adam")]
    way = f"train with {_call(quick)}"
    return [
        Finding(
            "ok", says, because, way if quick is first else f"{way}, the first whose steps are no dearer than SGD's"
        )
    ]


def _no_other(result: Escape) -> str:
    every = all(any(map(ended, runs_of(result, one))) for one in result.contenders)
    return "no other did" if every else "no other that came to its end did"


def _of(contender: Contender) -> str:
    return f" ({contender.escaped} of {contender.runs} runs)" if contender.runs > 1 else ""


def _call(contender: Contender) -> str:
    """An optimizer as it is named on the command line, with its learning rate.

    >>> _call(Contender(optimizer="rmsprop(eps=1e-30)", kind="first", settings={"lr": 0.001}))
    'rmsprop(lr=0.001, eps=1e-30)'
    """
    name, _, rest = contender.optimizer.partition("(")
    lr = lr_of(contender)
    if lr == MISSING or "lr=" in rest or any(mark in name for mark in ":."):
        return contender.optimizer
    return f"{name}(lr={lr}, {rest}" if rest else f"{name}(lr={lr})"


def _nobody(result: Escape, whole: Sequence[Run]) -> Finding:
    """That nobody does, of those whose runs came to an end."""
    best = min((share for run in whole if (share := _share(result, run)) is not None), default=None)
    names = {run.optimizer for run in whole}
    those = [contender for contender in result.contenders if contender.optimizer in names]
    one, out = len(those) == 1, on_plateau(result)
    who = f"{_call(those[0])} does not" if one else f"None of {len(those)} optimizers"
    verb = ("leave" if out else "get") + "s" * (not one)
    where = "the plateau" if out else f"below {plain(result.threshold)} of the loss"
    runs = "" if not any(run.escaped for run in whole) else " in more than half of the runs"
    return Finding(
        "bad" if result.named and out else "warn",
        f"{who} {verb} {where} within {counted(result.budget, 'backpropagation')}{runs}.",
        f"the loss came down to {number(best)} of the reference, and {plain(result.threshold)} is out",
        _others(result),
    )


def _others(result: Escape) -> str:
    """What is left to do where nobody gets out: no new initialization, where the network is trained."""
    if result.plateaus and all(plateau.state in ("trained", "minimum") for plateau in result.plateaus):
        return "a larger --budget, if it is to be trained further"
    mend = "hessdiag check MODEL --try, which finds an initialization that trains"
    if result.named:
        return f"the same without --optimizer, which races the usual ones; or {mend}"
    return f"{mend}; or a larger --budget"


def _stuck(result: Escape) -> list[Finding]:
    """Who stays, and why: those for which something explains it, each; the others in one sentence."""
    stuck = [one for one in result.contenders if _stuck_runs(result, one)]
    explained = [one for one in stuck if _reasons(result, one)]
    others = [one for one in stuck if one not in explained]
    if all(one.backprops is None for one in result.contenders):  # which is said already
        explained, others = [one for one in explained if one.notes], []
    level: Level = "bad" if result.named else "note"
    out, there = on_plateau(result), f"below {plain(result.threshold)} of the loss"
    stays, stay = ("stays on the plateau", "stay on the plateau") if out else (f"is not {there}", f"are not {there}")
    found = [
        Finding(
            level,
            f"{_call(one)} {stays}{_in_some(result, one)}.",
            "; ".join(_reasons(result, one)),
            _way_out(result, one),
        )
        for one in explained
    ]
    if others:
        names, some = listed(list(map(_call, others)), NAMED), ""
        if len(others) == 1:
            some = _in_some(result, others[0])
        runs = [run for one in others for run in runs_of(result, one)]
        shares = [share for run in runs if (share := _share(result, run)) is not None]
        whose = "its lowest loss" if len(others) == 1 else "the lowest loss of theirs"
        because = f"{whose} is {number(min(shares, default=None))} of the reference"
        says = f"{names} {stays if len(others) == 1 else stay}{some}."
        found.append(Finding(level, says, because, _instead(result) or "a larger --budget"))
    return found


def _stuck_runs(result: Escape, contender: Contender) -> list[Run]:
    """Its runs that stayed: not those that were thrown about, which are told of apart."""
    return [run for run in runs_of(result, contender) if run.outcome == "stuck" and unstable_of(result, run) is None]


def _share(result: Escape, run: Run) -> float | None:
    return ratio(run.best_loss, plateau_of(result, run))


def _in_some(result: Escape, contender: Contender) -> str:
    """In how many runs, where not in all."""
    stuck, runs = len(_stuck_runs(result, contender)), len(runs_of(result, contender))
    return "" if stuck == runs else f" in {stuck} of {runs} runs"


def _reasons(result: Escape, contender: Contender) -> list[str]:
    """Why it stays: its notes, those of one of its runs, and else what was predicted where that is beyond its budget."""
    runs = _stuck_runs(result, contender)
    noted = next((run.notes for run in runs if run.notes), ())
    said = [note.partition(TRY)[0].rstrip(".") for note in dict.fromkeys((*contender.notes, *noted))]
    late = [run for run in runs if held(run)]
    if late and not noted and (found := prediction_of(late)) is not None:
        said.append(f"predicted after {band(found)} steps")
    return said


def _way_out(result: Escape, contender: Contender) -> str:
    """What to do instead: an epsilon that leaves the gradient alone, or another optimizer."""
    gradients = [plateau.gradient_median for plateau in result.plateaus if plateau.gradient_median]
    instead = _instead(result)
    noted = next((note.partition(TRY)[2].rstrip(".") for note in contender.notes if TRY in note), "")
    if noted:
        return f"{noted}, or {instead}" if instead else noted
    if contender.floor is not None and gradients and min(gradients) < contender.floor:
        epsilon = f"{smaller_epsilon(min(gradients))} in the optimizer"
        return f"{epsilon}, or {instead}" if instead else epsilon
    return instead or _others(result)


def _instead(result: Escape) -> str:
    """The first optimizer that gets through, one of first order if there is any."""
    through = [one for one in result.contenders if one.backprops is not None]
    through.sort(key=lambda one: one.kind != "first")
    return _call(through[0]) if through else ""


def _killed(result: Escape) -> list[Finding]:
    """Whom the network did not survive."""
    starts = [(run, plateau_of(result, run)) for run in result.runs if not solved(run)]
    alive = [run for run, start in starts if start is None or not start.dead]
    return [
        Finding(
            "bad" if result.named else "warn",
            f"{name} kills the network: its gradient becomes exactly zero in {some} of {counted(many, 'run')}.",
            "large steps of equal size push units below zero on all samples, and nothing brings them back",
            "a smaller learning rate, leaky ReLU, or wider layers",
        )
        for name, some, many in _counts(result, alive, "dead")
    ]


def _diverged(result: Escape) -> list[Finding]:
    return [
        Finding(
            "bad" if result.named else "note",
            f"{name} diverges in {some} of {counted(many, 'run')}.",
            "its loss grew beyond all bounds, or was no number any more",
            "a smaller learning rate",
        )
        for name, some, many in _counts(result, result.runs, "diverged")
    ]


def _counts(result: Escape, runs: Sequence[Run], outcome: str) -> Iterable[tuple[str, int, int]]:
    """Optimizers with runs that ended so, and not for a learning rate of which it is said: how many, and of how many."""
    ended = [run for run in runs if run.outcome == outcome and unstable_of(result, run) is None]
    for name in dict.fromkeys(run.optimizer for run in ended):
        yield name, sum(run.optimizer == name for run in ended), sum(run.optimizer == name for run in runs)


def _law(result: Escape) -> list[Finding]:
    """Whether escapes came as predicted."""
    stable = [run for run in result.runs if unstable_of(result, run) is None]  # laws are of learning rates that are
    judged = [(run, found) for run in stable if (found := held(run)) is not None]
    if not judged:
        return []
    right = sum(found for _, found in judged)
    wrong = [run for run, found in judged if not found]
    if not wrong:
        example = next((run for run, _ in judged if run.escaped), judged[0][0])
        return [
            Finding(
                "ok",
                f"All {counted(right, 'prediction')} held." if right > 1 else "The prediction held.",
                _beside(example),
                "",
            )
        ]
    return [
        Finding(
            "note",
            f"{right} of {counted(len(judged), 'prediction')} held.",
            "; ".join(_beside(run) for run in {one.optimizer: one for one in wrong}.values()),
            "go by what was measured: the laws are of gradient descent and of steps of equal size on deep ReLU networks",
        )
    ]


def _beside(run: Run) -> str:
    """What was measured beside what was predicted."""
    if run.steps is None:
        return f"{run.optimizer} was not out after {run.spent.steps:,} steps, predicted were {band(run.predicted)}"
    return f"{run.optimizer} escaped in {run.steps:,} steps, predicted were {band(run.predicted)}"


def _later(result: Escape) -> list[Finding]:
    """Who would leave with a larger budget that can be paid."""
    later = [run for run in result.runs if predicted_later(run) and run.predicted and not held(run)]
    later = [run for run in later if unstable_of(result, run) is None]
    if not later:
        return []
    ends = [run.predicted.high for run in later if run.predicted is not None and run.predicted.high is not None]
    most = max(ends, default=0.0)
    names = ", ".join(dict.fromkeys(run.optimizer for run in later))
    return [
        Finding(
            "note",
            f"{names} may still leave: the budget ends within the band of the prediction.",
            f"predicted after {band(later[0].predicted)} steps, and {later[0].spent.steps:,} were made",
            f"--budget {_round(most)}" if 0 < most < 1e7 else "a larger --budget",
        )
    ]


def _round(value: float) -> int:
    """Up to two digits."""
    digits = max(len(str(int(value))) - 2, 0)
    return int(-(-value // 10**digits) * 10**digits)


def _untrusted(result: Escape) -> list[Finding]:
    found = []
    for contender in result.contenders:
        shares = [
            run.region.untrusted
            for run in runs_of(result, contender)
            if run.region is not None and run.region.untrusted is not None
        ]
        share = sum(shares) / len(shares) if shares else 0.0
        if share > WRONG:
            found.append((contender.optimizer, share))
    if not found:
        return []
    worst = max(found, key=lambda pair: pair[1])
    return [
        Finding(
            "note",
            f"The quadratic model is wrong for {', '.join(name for name, _ in found)}: most steps gain less than a quarter of what it promises.",
            f"rho, the actual over the predicted decrease, is below 1/4 in {percent(worst[1], 2)} of the steps of {worst[0]}",
            "hessdiag trust-radius MODEL, which says how far from here the Hessian tells the truth",
        )
    ]


def _by_score(result: Escape) -> list[Finding]:
    known = [(one, score) for one, score in best_scores(result) if score is not None]
    if not known:
        return []
    (first, best), *others = known
    behind = ", ".join(f"{one.optimizer} {number(score, 4)}" for one, score in others)
    return [
        Finding(
            "ok",
            f"{first.optimizer} has the smallest mean loss, {number(best, 4)}.",
            f"then {behind}" if behind else "it ran alone",
            "more --seeds, for how much of it is chance" if first.runs < 2 else "",
        )
    ]


def _best(result: Escape, contender: Contender) -> str:
    shares = [share for run in runs_of(result, contender) if (share := _share(result, run)) is not None]
    return f"its loss comes down to {number(min(shares, default=None))} of the reference"
