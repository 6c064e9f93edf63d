"""Which of the candidates are causes, which their symptoms, and which comes first."""

from collections.abc import Callable

from hessdiag.questions.check.causes.candidate import Candidate
from hessdiag.questions.check.result import Cause, Check

Rule = Callable[[Check], list[Candidate]]

RULES: tuple[Rule, ...] = ()


def causes(check: Check) -> tuple[Cause, ...]:
    """Why this network does not train, the likeliest first; nothing for a healthy one."""
    found = [candidate for rule in RULES for candidate in rule(check)]
    return tuple(
        Cause(
            id=one.id,
            layer=one.layer,
            value=one.value,
            threshold=one.threshold,
            quantity=one.quantity,
            confidence=one.confidence,
            says=one.says,
            remedy=one.remedy,
        )
        for one in found
    )
