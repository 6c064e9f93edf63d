"""What a document knows of each number that is compared: itself, its error, or where it certainly is."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hessdiag.numbers import number
from hessdiag.questions import registry
from hessdiag.questions.compare.quantities import QUANTITIES, Quantity
from hessdiag.statistics.differences import Known
from hessdiag.statistics.student import Z, freedom_of, reach_of

# Relative errors of numbers that many rounded ones are summed to.
ROUNDING = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
UNTOLD = 1e-3  # relative to the largest magnitude, of an eigenvalue whose residual is not told
EXACT = "exact"  # a method, in all questions that have one
DOWNWARD = ("smallest", "lowest", "lambda_min", "measured.0", "largest_step")  # bounds that the number is at or below


@dataclass(frozen=True)
class Seen:
    """One number of a document.

    Attributes:
        metric: Its path in the result.
        name: In words.
        quantity: Which it is.
        value: Itself; `None` where it was not measured, or is not finite.
        known: What is known of it, or of its logarithm where it is "relative"; `None` where nothing is.
        stderr: Its standard error as the document has it.
        interval: And its interval, or where it certainly is.
    """

    metric: str
    name: str
    quantity: Quantity
    value: float | None
    known: Known | None = None
    stderr: float | None = None
    interval: tuple[float, float] | None = None


def kind_of(doc: Mapping[str, Any]) -> tuple[str, str]:
    """The command of a document, with the key of its kind of result."""
    return doc["command"], registry.question(doc["command"]).variant(doc["result"]).key


def readings(doc: Mapping[str, Any]) -> dict[tuple[str, str], Seen]:
    """All numbers of a document that can be compared, by what they are and of what; the most telling first."""
    result, rounding = doc["result"], ROUNDING.get(doc["problem"].get("dtype") or "float64", ROUNDING["float32"])
    return {
        (quantity.path, of): _seen(quantity, path, of, result, rounding)
        for quantity in QUANTITIES[kind_of(doc)]
        for path, of in _places(quantity, result)
    }


def _places(quantity: Quantity, result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths of a quantity in a result, each with what tells the entry of its list."""
    if "*" not in quantity.path:
        yield quantity.path, ""
        return
    home, _, _ = quantity.path.partition(".*")
    for index, entry in enumerate(at(result, home) or ()):
        of = entry.get(quantity.key) if isinstance(entry, Mapping) else at(result, f"names.{index}")
        if of is not None:
            yield str(index), of if isinstance(of, str) else number(of)


def at(value: Any, path: str) -> Any:
    """What stands at a path of keys and places in lists; `None` where that leads nowhere.

    >>> at({"a": [{"b": 2}]}, "a.-1.b"), at({"a": None}, "a.0"), at({}, "")
    (2, None, None)
    """
    for step in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.lstrip("-").isdecimal():
            value = value[int(step)] if -len(value) <= int(step) < len(value) else None
        else:
            return None
    return value


def _finite(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


@dataclass(frozen=True)
class _Place:
    """A quantity at its place in a result."""

    quantity: Quantity
    path: str
    index: str
    result: Mapping[str, Any]
    value: float
    rounding: float

    def at(self, path: str) -> Any:
        return at(self.result, path.replace("*", self.index)) if path else None

    def number(self, path: str) -> float | None:
        return _finite(self.at(path))

    @property
    def exact(self) -> bool:
        """Whether the result was measured by an exact method."""
        return bool(self.result.get("method") == EXACT)

    @property
    def stderr(self) -> float | None:
        return self.number(self.quantity.error or f"{self.path}_stderr")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval beside it."""
        ends = self.quantity.interval or (f"{self.path}_interval.0", f"{self.path}_interval.1")
        low, high = (self.number(end) for end in ends)
        return None if low is None or high is None else (low, high)

    @property
    def slack(self) -> float:
        """By how much rounding may change it; nothing, of a count."""
        if isinstance(self.at(self.path), int):
            return 0.0
        return self.rounding * self.scale

    @property
    def scale(self) -> float:
        """The magnitude of the numbers that it was computed from."""
        others = (abs(self.number(path) or 0.0) for path in self.quantity.scale)
        return max(abs(self.value), self.quantity.unit, *others)

    def certain(self, reach: float) -> Known:
        return Known(self.value, self.value - reach, self.value + reach)


def _seen(quantity: Quantity, index_or_path: str, of: str, result: Mapping[str, Any], rounding: float) -> Seen:
    path = quantity.path.replace("*", index_or_path) if "*" in quantity.path else index_or_path
    name = quantity.name.format(of.replace("_", " ") if quantity.key == "kind" else of)
    value = _finite(at(result, path))
    if value is None:
        return Seen(path, name, quantity, None)
    place = _Place(quantity, path, index_or_path, result, value, rounding)
    known = _KNOWN[quantity.how](place)
    random = known is not None and bool(known.down or known.up)
    stderr = {"error": place.stderr, "relative": value * (place.stderr or 0.0)}.get(quantity.how) if random else None
    interval = None if known is None else _shown(place, known, random=random)
    return Seen(path, name, quantity, value, known, stderr, interval)


def _shown(place: _Place, known: Known, *, random: bool) -> tuple[float, float] | None:
    """The interval that stands beside a number: 95 %, or where it certainly is, beyond rounding."""
    if not random:
        wide = known.high - known.low > 2.5 * place.slack
        return (known.low, known.high) if wide else None
    reach = reach_of(known.freedom)
    low, high = known.value - reach * known.down, known.value + reach * known.up
    return (math.exp(low), math.exp(min(high, 700.0))) if place.quantity.how == "relative" else (low, high)


def _exact(place: _Place) -> Known | None:
    return place.certain(place.slack)


def _told(place: _Place) -> Known | None:
    return _exact(place) if place.exact else None


def _error(place: _Place) -> Known | None:
    """An estimate, by its interval where there is one."""
    stderr, interval = place.stderr, place.interval
    if stderr is None:
        return _exact(place) if place.quantity.known and interval is None else _told(place)
    if not stderr > 0:
        return _exact(place)
    if place.quantity.widened:
        return _unwidened(place, stderr, interval)
    if interval is None or not interval[0] <= place.value <= interval[1]:
        count = place.number(place.quantity.of)
        freedom = math.inf if count is None else max(count - 1, 1.0)
        return Known(place.value, place.value, place.value, stderr, stderr, freedom)
    down, up = place.value - interval[0], interval[1] - place.value
    # Wider than the normal law has it, on both sides: Student's, of so many degrees of freedom.
    freedom = freedom_of(math.sqrt(max(down, sys.float_info.min) * max(up, sys.float_info.min)) / stderr)
    reach = reach_of(freedom)
    return Known(place.value, place.value, place.value, down / reach, up / reach, freedom)


def _unwidened(place: _Place, stderr: float, interval: tuple[float, float] | None) -> Known:
    """An estimate whose error has Student's width already: two of them together have more degrees of freedom."""
    low, high = interval or (place.value - Z * stderr, place.value + Z * stderr)
    freedom = max((place.number(place.quantity.widened) or 2.0) - 1, 1.0)
    reach = reach_of(freedom)
    down, up = (max(end, 0.0) / reach for end in (place.value - low, high - place.value))
    return Known(place.value, place.value, place.value, down, up, freedom)


def _relative(place: _Place) -> Known | None:
    """A positive number by its logarithm, which has the error."""
    stderr, count = place.stderr, place.number(place.quantity.of)
    if stderr is None or not place.value > 0:
        return None
    log = math.log(place.value)
    return Known(log, log, log, stderr, stderr, math.inf if count is None else max(count - 1, 1.0))


def _eigenvalue(place: _Place) -> Known | None:
    """A Ritz value: within its residual of an eigenvalue, or a bound."""
    reach = max(place.slack, _residual(place))
    known, flag = place.certain(reach), place.at(place.quantity.flag)
    if not (flag is False if "converged" in place.quantity.flag else flag):
        return known
    below = place.path.startswith(DOWNWARD)
    return Known(place.value, -math.inf if below else known.low, known.high if below else math.inf)


def _residual(place: _Place) -> float:
    if place.path == "largest_step":  # the inverse of the largest, and as certain
        top = place.number("largest")
        return 0.0 if not top else abs(place.value) * _residual_of(place.result, top) / abs(top)
    if place.quantity.error:
        return place.number(place.quantity.error) or 0.0
    if place.exact:
        return 0.0
    if any(name in place.result for name in ("outliers", "ritz_range")):
        return _residual_of(place.result, place.value)
    return UNTOLD * place.scale


def _residual_of(result: Mapping[str, Any], eigenvalue: float) -> float:
    """The residual of the pair that has this eigenvalue, in any of a result's lists."""
    pairs = [
        pair
        for name in ("outliers", "highest", "lowest")
        if isinstance(result.get(name), list)
        for pair in result[name]
        if isinstance(pair, Mapping)
    ]
    found = (pair.get("residual") for pair in pairs if pair.get("eigenvalue") == eigenvalue)
    return next((_finite(residual) or 0.0 for residual in found), 0.0)


def _radius(place: _Place) -> Known | None:
    """A number that is certainly within what stands beside it, or a bound."""
    known, bound = place.certain(max(place.stderr or 0.0, place.slack)), place.at(place.quantity.flag)
    if bound is None:
        return known
    return Known(
        place.value, -math.inf if bound == "upper" else known.low, math.inf if bound == "lower" else known.high
    )


def _bounds(place: _Place) -> Known | None:
    interval = place.interval
    return _told(place) if interval is None else Known(place.value, *interval)


def _share(place: _Place) -> Known | None:
    """A share of independent cases, with Wilson's interval."""
    n = place.number(place.quantity.of)
    if not n:
        return None
    cases = (
        round(place.value * n) if place.value <= 1 and not isinstance(place.at(place.path), int) else round(place.value)
    )
    if not 0 <= cases <= n:
        return None
    share, z = cases / n, Z
    middle, half = (
        (share + z * z / 2 / n) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2),
    )
    unit = place.value / share if share else (1.0 if place.value == share else n)
    low, high = max(middle - half, 0.0) * unit, min(middle + half, 1.0) * unit
    down, up = max(place.value - low, 0.0) / z, max(high - place.value, 0.0) / z
    return Known(place.value, place.value, place.value, down, up, cases=cases, trials=round(n))


_KNOWN: dict[str, Callable[[_Place], Known | None]] = {
    "exact": _exact,
    "error": _error,
    "relative": _relative,
    "eigenvalue": _eigenvalue,
    "radius": _radius,
    "bounds": _bounds,
    "share": _share,
    "told": _told,
}
