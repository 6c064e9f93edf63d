"""What the measurements of one problem have in common: how they become parts of a result document."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hessdiag.curvature.point.result import Point
from hessdiag.questions.common.verdict import Finding, Status

_HELD_ELSEWHERE = ("checks", "status", "findings", "resumed_pieces")  # in the document, beside its "result"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The end of every measurement; subclasses add their numbers, which are the document's "result".

    Attributes:
        checks: Relative errors of the self-checks of the products.
        trusted: Whether they passed. Where they did not, nothing is proven by the numbers.
        check_tolerance: Largest error that they allow.
        point: What kind of point the parameters are at; `None` where it was not looked at.
        status: "ok", "inexact" (not to be trusted) or "interrupted" (what was complete by then).
        findings: The verdict.
        resumed_pieces: How many finished pieces of an earlier run were taken up.
    """

    checks: dict[str, float | None]
    status: Status
    trusted: bool = True
    check_tolerance: float = 0.0
    point: Point | None = None
    findings: tuple[Finding, ...] = ()
    resumed_pieces: int = 0

    @property
    def theory(self) -> Mapping[str, Any] | None:
        """What closed forms predict; `None` where there are none for a given network."""
        return None

    @property
    def thresholds(self) -> dict[str, float]:
        """What the self-checks allow, by name."""
        return dict.fromkeys(self.checks, self.check_tolerance)

    @property
    def verdict(self) -> list[dict[str, str]]:
        """The findings as result documents hold them."""
        return [finding.as_dict() for finding in self.findings]

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        found = {key: value for key, value in asdict(self).items() if key not in _HELD_ELSEWHERE}
        return found | ({} if self.point is None else point_result(self.point))


def point_result(point: Point) -> dict[str, Any]:
    """What a result document says of the point: its kind and numbers, and beside them where units lie at a kink."""
    numbers = asdict(point)
    return {"kinks": numbers.pop("kinks"), "point": numbers}
