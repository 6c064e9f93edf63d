"""Which preconditioner is worth its memory, whether a diagonal is enough, and what the numbers leave open."""

from collections.abc import Sequence
from dataclasses import replace

from hessdiag.numbers import counted, number, percent, times
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    checks_findings,
    data_findings,
    faint_findings,
    interrupted_after,
    most_severe_first,
    nothing_there,
    piece_findings,
)
from hessdiag.questions.precondition.kinds import DIAGONALS, word
from hessdiag.questions.precondition.result import Precondition, Preconditioned

WORTH = 1.5  # times the condition number must fall for a preconditioner to be worth anything
ROUNDING = 1e-9  # relative: condition numbers so near each other are the same
NEAR = 2.0  # times the best condition number: what is cheaper and that near does as well
RESOLVED = 1.0  # of the damping: what eigenvalues that were not found may be, for the numbers to be those of H


def with_frontier(rows: Sequence[Preconditioned]) -> tuple[Preconditioned, ...]:
    """The rows, with those marked that no other beats in condition number without holding more.

    >>> def row(name, held, condition):
    ...     return Preconditioned(name=name, numbers_held=held, condition=condition, effective_dimension=1.0, cg_iterations=1)
    >>> rows = with_frontier([row("none", 0, 9.0), row("a", 2, 9.5), row("b", 3, 2.0)])
    >>> [found.name for found in rows if found.frontier]
    ['none', 'b']
    """
    return tuple(replace(row, frontier=not any(_beats(other, row) for other in rows)) for row in rows)


def _beats(one: Preconditioned, other: Preconditioned) -> bool:
    """Whether one holds no more and is no worse, and is better in one of both by more than rounding."""
    cheaper, better = one.numbers_held < other.numbers_held, _of(one) < _of(other) * (1 - ROUNDING)
    no_worse = one.numbers_held <= other.numbers_held and _of(one) <= _of(other) * (1 + ROUNDING)
    return no_worse and (cheaper or better)


def _of(row: Preconditioned) -> float:
    """Its condition number; of one that is not known infinite."""
    return float("inf") if row.condition is None else row.condition


@most_severe_first
def findings(found: Precondition) -> list[Finding]:
    """The verdict, the most important sentence first."""
    said = checks_findings(found.checks, found.check_tolerance, found.point)
    if not found.trusted:
        return [*said, *data_findings(found.problem)]
    if found.interrupted and found.preconditioners:
        finished = [word(row.name) for row in found.preconditioners]
        said.append(interrupted_after(finished, "the same command with more time; --resume DIR keeps what is finished"))
    size = None if found.largest is None or found.smallest is None else max(found.largest, -found.smallest)
    if size == 0:
        says = "The Hessian is zero: there is nothing to condition."
        because = "every eigenvalue vanishes; a network whose units are all dead does this"
        return [*said, nothing_there(says, because, found.point), *data_findings(found.problem)]
    said += faint_findings(size, "the largest magnitude of an eigenvalue")
    plain = found.of("none")
    if plain is not None and len(found.preconditioners) > 1 and not blurred(found):
        said += [worth(found, plain), *_diagonals(found, plain), _frontier(found), *_conjugate(found, plain)]
    said += [*_resolution(found), *_negative(found, plain), *_left_out(found), *_how(found)]
    said += piece_findings(found.point)
    return [*said, *data_findings(found.problem)]


def blurred(found: Precondition) -> bool:
    """Whether so much negative curvature was not found that intervals are too wide to choose by."""
    return found.method != "exact" and bool(found.shift) and (found.unresolved_negative or 0.0) >= (found.shift or 0.0)


def best(found: Precondition) -> Preconditioned | None:
    """The best conditioned, of those that are finished."""
    return min(found.preconditioners, key=_of, default=None)


def chosen(found: Precondition) -> Preconditioned | None:
    """The one that is worth its memory: the cheapest whose condition number is within twice the best."""
    top = best(found)
    if top is None:
        return None
    near = [row for row in found.preconditioners if row.frontier and _of(row) <= NEAR * _of(top)]
    return min(near, key=lambda row: row.numbers_held, default=top)


def worth(found: Precondition, plain: Preconditioned) -> Finding:
    """Which one is worth its memory, if any."""
    top, own = best(found), chosen(found)
    assert top is not None
    assert own is not None
    unsure = _unsure(top if own.name == "none" else own, plain)
    is_, makes = ("seems", "seems to make") if unsure else ("is", "makes")
    if top.name == "none":
        return Finding(
            "note",
            f"No preconditioner {is_} worth its memory here: none {makes} the condition number of {number(_of(plain))} smaller.",
            f"the curvature is damped by {percent(found.damping)} of the largest eigenvalue{unsure}",
            SMALLER,
        )
    if _of(plain) < WORTH * _of(top) or own.name == "none":
        return Finding(
            "note",
            f"No preconditioner {is_} worth its memory here: the best, {word(top.name)}, makes {number(_of(top))} of a condition number of {number(_of(plain))}.",
            f"that one holds {_held(found, top)}{unsure}",
            SMALLER,
        )
    least = (
        "" if own is top else f"; the least, {number(_of(top))}, is that of {word(top.name)} with {_held(found, top)}"
    )
    kind = "an optimizer of that kind, or conjugate gradients with it"
    return Finding(
        "note",
        f"{_upper(word(own.name))} {is_} worth its memory: the condition number falls from {number(_of(plain))} to {number(_of(own))}.",
        f"it holds {_held(found, own)}{least}{unsure}",
        kind if own.name in OPTIMIZERS else "conjugate gradients or Newton steps with it",
    )


def _unsure(own: Preconditioned, plain: Preconditioned) -> str:
    """That the intervals of two do not tell them apart; empty where they do, or there are none."""
    one, other = own.condition_interval, plain.condition_interval
    if own is plain or one is None or other is None or one[1] < other[0] or other[1] < one[0]:
        return ""
    return (
        f"; their intervals overlap, {number(one[0])} to {number(one[1])} and {number(other[0])} to {number(other[1])}"
    )


SMALLER = "plain gradient or Newton-CG steps; a smaller --damping asks about flatter directions"
OPTIMIZERS = ("adam", "kfac", "ekfac", "shampoo", "shampoo-squared", "soap")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _held(found: Precondition, row: Preconditioned) -> str:
    each = row.numbers_held / max(found.parameters, 1)
    return f"{counted(row.numbers_held, 'number')}, {number(each, 2)} a parameter"


def _diagonals(found: Precondition, plain: Preconditioned) -> list[Finding]:
    """Whether a diagonal is enough."""
    names = (*DIAGONALS[:2], found.optimizer_name)
    rows = [row for row in found.preconditioners if row.name in names]
    top, own = best(found), min(rows, key=_of, default=None)
    if own is None or top is None or _of(plain) < WORTH * _of(top):
        return []
    listed = ", ".join(f"{word(row.name)} {number(_of(row))}" for row in rows)
    because = f"{listed}; without {number(_of(plain))}, with {word(top.name)} {number(_of(top))}"
    if _of(own) <= NEAR * _of(top):
        says = f"A diagonal is enough: {word(own.name)} comes within {times(_of(own) / _of(top))} the best condition number."
        return [Finding("ok", says, because, "Adam, or another method that scales each parameter by itself")]
    if _of(own) >= _of(plain):
        says = "A diagonal does not help here: none makes the condition number smaller."
        return [Finding("note", says, because, "what mixes the parameters of a layer, if anything")]
    says = f"A diagonal is not enough: the best, {word(own.name)}, leaves {times(_of(own) / _of(top))} the condition number that {word(top.name)} does."
    return [Finding("note", says, because, "what mixes the parameters of a layer: curvature is not along the axes")]


def _frontier(found: Precondition) -> Finding:
    rows = sorted((row for row in found.preconditioners if row.frontier), key=lambda row: row.numbers_held)
    listed = ", ".join(f"{word(row.name)} ({number(row.numbers_held)} held, {number(_of(row))})" for row in rows)
    beaten = [word(row.name) for row in found.preconditioners if not row.frontier]
    says = f"On the frontier of numbers held and condition number: {listed}."
    because = (
        f"beaten by one that holds no more: {', '.join(beaten)}" if beaten else "each is better than all that hold less"
    )
    return Finding("note", says, because, "")


def _conjugate(found: Precondition, plain: Preconditioned) -> list[Finding]:
    """What it means for conjugate gradients."""
    known = [row for row in found.preconditioners if row.cg_iterations is not None and not row.cg_unfinished]
    if plain.cg_iterations is None or not known:
        return []
    top = min(known, key=lambda row: row.cg_iterations or 0)
    more = "more than " if plain.cg_unfinished else ""
    error = f"to a relative error of {found.tol:g} in the energy norm"
    if top.name == "none":
        says = (
            f"Conjugate gradients gain nothing from any of them: {counted(plain.cg_iterations, 'iteration')} without."
        )
        return [Finding("note", says, f"predicted from the gradient's spectral measure, {error}", "")]
    says = f"Conjugate gradients for a damped Newton step take {counted(top.cg_iterations, 'iteration')} with {word(top.name)}, {more}{plain.cg_iterations:,} without."
    return [Finding("note", says, f"predicted from the gradient's spectral measure, {error}", "")]


def _resolution(found: Precondition) -> list[Finding]:
    """What Lanczos has not seen, beside the damping."""
    if found.method == "exact" or not found.shift or found.unresolved is None:
        return []
    if blurred(found):
        below, size = found.unresolved_negative or 0.0, found.shift / found.damping
        share = below / size
        enough = f"--damping {number(min(2 * share, 1.0), 1)}, which covers them, or " if share < 1 else ""
        return [
            Finding(
                "warn",
                f"Which preconditioner is worth its memory is not decided: negative eigenvalues down to {number(-below)} were not found one by one, below the damping of {number(found.shift)}.",
                f"condition numbers are wide intervals, and no iterations are predicted; {counted(found.resolved, 'eigenpair')} were found",
                f"{enough}more --steps: at an initialization many directions curve down, after training few do",
            )
        ]
    if found.unresolved <= RESOLVED * found.shift:
        return []
    predicted = any(row.cg_iterations is not None for row in found.preconditioners)
    missing = "" if predicted else "; so much of the negative curvature was not found that no iterations are predicted"
    return [
        Finding(
            "note",
            f"{counted(found.resolved, 'eigenpair')} were found; eigenvalues below {number(found.unresolved)} are known by products alone.",
            f"the damping is {number(found.shift)}; the diagonal and the blocks of H are those of what was found{missing}",
            "more --steps, or a larger --damping, if intervals are too wide",
        )
    ]


def _negative(found: Precondition, plain: Preconditioned | None) -> list[Finding]:
    low, shift = found.smallest, found.shift
    if low is None or not shift or low >= -shift or plain is None:
        return []
    return [
        Finding(
            "note",
            f"The Hessian has negative curvature, down to {number(low)}: what is conditioned is its positive part, damped.",
            f"beyond the damping of {number(shift)}; the column |H| turns negative curvature around, as saddle-free Newton steps do",
            "an optimizer that can use it: hessdiag eigs MODEL",
        )
    ]


def _left_out(found: Precondition) -> list[Finding]:
    if not found.left_out:
        return []
    names = ", ".join(word(row.name) for row in found.left_out)
    return [
        Finding(
            "note", f"Left out: {names}.", found.left_out[0].why, "--loss ce|mse|bce|nll, where the loss is one of them"
        )
    ]


def _how(found: Precondition) -> list[Finding]:
    """What the approximations are of."""
    said = []
    if found.sharing:
        says = "K-FAC takes the positions of a sample (tokens, patches) for samples of their own."
        because = "layers multiply several positions by one matrix; this is its form `expand`"
        said.append(Finding("note", says, because, ""))
    if found.draws:
        says = f"Kronecker factors come from {found.draws} random gradients a sample, and not from all."
        said.append(
            Finding("note", says, "samples have more than 128 outputs", "another --seed shows how much that matters")
        )
    return said
