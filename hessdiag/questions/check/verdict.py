"""What `check` says: the first cause, the others, and what was not looked at."""

from hessdiag.questions.check.result import Cause, Check
from hessdiag.questions.common.result import Finding, Level

BROKEN = 0.7  # confidence from which a network will not train as it is


def findings(check: Check) -> list[Finding]:
    """The causes as findings, in their order."""
    return [_finding(cause) for cause in check.causes]


def _finding(cause: Cause) -> Finding:
    level: Level = "bad" if cause.confidence >= BROKEN else "warn"
    return Finding(level, cause.says, cause.quantity, cause.remedy)
