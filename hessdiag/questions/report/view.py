"""The view of `report`: the verdict over all questions, then each as its own view has it."""

import math
from collections import Counter
from dataclasses import replace

from hessdiag.errors import LoadError
from hessdiag.numbers import duration, short
from hessdiag.questions import pages
from hessdiag.questions.common.result import Level
from hessdiag.questions.common.view import BY_STATUS, subject
from hessdiag.questions.report import result as results
from hessdiag.questions.report.result import Report
from hessdiag.questions.report.verdict import taken
from hessdiag.report import shell
from hessdiag.report.numbers import counted, number, with_error
from hessdiag.report.view import Fact, LeftOut, Section, View

WORDS: dict[Level, tuple[str, str]] = {
    "bad": ("bad", "bad"),
    "warn": ("warning", "warnings"),
    "note": ("note", "notes"),
    "ok": ("good", "good"),
}

CUT = "CUT BY THE BUDGET: these are the numbers as they stood then, of what was measured by then."
NAMES = {  # of key numbers, in a few words; the others are called what gates call them
    ("check", "output.loss"): "loss",
    ("sharpness", "ratio"): "curvature over what the optimizer can take (edge: 1)",
    ("sharpness", "largest_lr"): "largest stable learning rate of the optimizer",
    ("sharpness", "noise_scale"): "gradient noise scale, in samples",
    ("eigs", "largest"): "largest eigenvalue: the sharpness",
    ("eigs", "smallest"): "smallest eigenvalue",
    ("eigs", "largest_step"): "largest stable step of gradient descent",
    ("eigs", "gradient_norm"): "norm of the gradient",
    ("spectrum", "trace"): "trace: the sum of the eigenvalues",
    ("spectrum", "negative_mass"): "share of Σ|λ| that is negative",
    ("blocks", "between_layers"): "share of |H|² between layers",
    ("blocks", "residual_share"): "share of the residual beside Gauss-Newton",
    ("diag-share", "diag_share"): "share of Σ|H_ij| on the diagonal",
    ("trust-radius", "trusted_radius.uniform"): "longest step that the Hessian tells of (rms)",
    ("trust-radius", "missing_share"): "curvature that autograd misses at kinks",
    ("precondition", "preconditioners.0.condition"): "condition number, damped, unpreconditioned",
}


def view(result: Report) -> View:
    """Lay out a result of `report`.

    Raises:
        LoadError: if the document of a section is damaged.
    """
    keys = _keys(result.sections)
    return View(
        question="What is there to know about this model?",
        subject=(*subject(result.problem), ("asked", _asked(result))),
        headline=_headline(result),
        facts=tuple(_fact(one, keys) for one in result.key_numbers),
        blocks=(),
        sections=tuple(_section(one, key) for one, key in zip(result.sections, keys, strict=True)),
        left_out=tuple(_left_out(one) for one in result.left_out),
        warnings=tuple(_cut(one, result) for one in result.sections if one.cut),
    )


def _keys(sections: tuple[results.Section, ...]) -> list[str]:
    """A name for each section: its command's, with a number where that has several."""
    before: Counter[str] = Counter()
    keys = []
    for section in sections:
        before[section.command] += 1
        again = before[section.command]
        keys.append(section.command if again == 1 else f"{section.command}-{again}")
    return keys


def _asked(result: Report) -> str:
    budget = result.budget_seconds
    limit = "no limit of time" if budget is None or math.isinf(budget) else f"a budget of {_time(budget)}"
    spent = f"{counted(len(result.sections), 'question')} answered in {_taken(result.seconds)}"
    products = f", with {counted(result.products, 'Hessian product')}" if result.products else ""
    return f"preset {result.preset}, {limit}: {spent}{products}"


def _time(budget: float) -> str:
    """A budget as it is asked for.

    >>> _time(90.0), _time(3600.0)
    ('90 s', '60 min')
    """
    return duration(budget) if 600 <= budget < math.inf else f"{budget:g} s"


def _taken(seconds: float) -> str:
    return short(seconds) if math.isfinite(seconds) else number(seconds)


def _headline(result: Report) -> tuple[str, str]:
    """The first finding, which is the answer, and how many there are of each kind; its reason counts once."""
    if not result.findings:
        return "Nothing was found.", ""
    answer, *others = result.findings
    count = Counter(one.level for one in (answer, *others) if one is answer or one.because != answer.because)
    said = (f"{count[level]} {names[count[level] != 1]}" for level, names in WORDS.items() if count[level])
    return answer.says, ", ".join(said)


def _fact(one: results.KeyNumber, keys: list[str]) -> Fact:
    key = one.command if one.command in keys else ""
    name = NAMES.get((one.command, one.metric), one.meaning)
    return Fact(name, with_error(one.value, one.stderr), one.metric, key)


def _section(section: results.Section, key: str) -> Section:
    try:
        laid_out = pages.view_of(section.document)
    except LoadError as error:
        raise LoadError(f"section `{section.command}`: {error.what}", error.hint) from error
    announced = "" if section.announced_seconds is None else _taken(section.announced_seconds)
    warnings = laid_out.warnings
    if section.cut:
        warnings = (CUT, *(said for said in warnings if said != BY_STATUS["interrupted"]))
    took = taken(section) if math.isfinite(section.seconds) else number(section.seconds)
    return Section(key, replace(laid_out, argv=section.argv, warnings=warnings), took, announced)


def _cut(section: results.Section, result: Report) -> str:
    """What the head says of a question that the budget ended."""
    return (
        f"CUT BY THE BUDGET of {_time(result.budget_seconds or math.inf)}: {section.command}, which had "
        f"{taken(section)}. Its numbers are as they stood then. To the end: {shell.line(section.argv)}"
    )


def _left_out(one: results.NotAnswered) -> LeftOut:
    cost = "" if one.seconds is None or not math.isfinite(one.seconds) else f"about {short(one.seconds)}"
    return LeftOut(one.command, one.why, cost, one.argv)
