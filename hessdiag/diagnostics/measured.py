"""What the measurements of one problem have in common: how they become parts of a result document."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hessdiag.diagnostics.verdict import Finding, Status

_HELD_ELSEWHERE = ("checks", "status", "findings")  # in the document, beside its "result"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The end of every measurement; subclasses add their numbers, which are the document's "result".

    Attributes:
        checks: Relative errors of the self-checks of the products.
        status: "ok", "inexact" (not to be trusted) or "interrupted" (what was complete by then).
        findings: The verdict.
    """

    checks: dict[str, float | None]
    status: Status
    findings: tuple[Finding, ...] = ()

    @property
    def theory(self) -> Mapping[str, Any] | None:
        """What closed forms predict; `None` where there are none for a given network."""
        return None

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings as result documents hold them."""
        return [finding.as_dict() for finding in self.findings]

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        return {key: value for key, value in asdict(self).items() if key not in _HELD_ELSEWHERE}
