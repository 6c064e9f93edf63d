"""How numbers are written wherever a person reads them: in verdicts, facts, tables and sentences alike.

The same number has the same digits everywhere. Nothing is imported but the standard library.
"""

import math
from collections.abc import Sequence

MISSING = "–"
PLAIN = (1e-3, 1e6)  # written without an exponent
SMALLEST_P = 1e-9  # below, a tail says more of the law that was assumed than of chance


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; whole numbers in full.

    >>> number(0.012345), number(3.2e-41), number(62006), number(None), number(float("nan"))
    ('0.0123', '3.20e-41', '62,006', '–', 'NaN')
    """
    if value is None:
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if PLAIN[0] <= abs(value) < PLAIN[1]:
        return f"{value:,.{max(digits - 1 - int(exponent), 0)}f}"
    return f"{mantissa}e{int(exponent)}"


def percent(value: float | None, digits: int = 3) -> str:
    """A fraction as a percentage.

    >>> percent(0.1234), percent(0.0), percent(0.5), percent(1.2e-6)
    ('12.3 %', '0 %', '50.0 %', '1.20e-4 %')
    """
    return MISSING if value is None or math.isnan(value) else f"{number(100 * value, digits)} %"


def factor(value: float | None, digits: int = 3) -> str:
    """What something is multiplied by.

    >>> factor(1.5), factor(None)
    ('×1.50', '–')
    """
    return MISSING if value is None or math.isnan(value) else f"×{number(value, digits)}"


def factor_of_log(log: float | None, stderr: float | None) -> str:
    """A factor given by its natural logarithm, with its standard error.

    >>> factor_of_log(-0.03927, 0.0018), factor_of_log(-0.43, None), factor_of_log(0.004183, None)
    ('×0.9615 ± 0.0017', '×0.6505', '×1.00419')
    >>> factor_of_log(None, None)
    '–'
    """
    if log is None:
        return MISSING
    value = math.exp(min(log, 700.0))
    digits = 3 - math.floor(math.log10(max(abs(log), 1e-6))) if abs(log) < 1 else 4  # three of the logarithm itself
    return f"×{with_error(value, value * stderr if stderr else None, digits)}"


def p_value(p: float | None) -> str:
    """How likely chance alone does this.

    >>> p_value(0.0312), p_value(1e-20)
    ('p = 0.031', 'p < 1e-9')
    """
    if p is None:
        return f"p = {MISSING}"
    return f"p = {number(p, 2)}" if p >= SMALLEST_P else f"p < {number(SMALLEST_P, 1)}"


def with_error(value: float | None, stderr: float | None, digits: int = 4) -> str:
    """A number and its standard error, with two digits of the error; an error that is not known is left out.

    >>> with_error(0.012345, 0.0004), with_error(0.012345, None), with_error(0.012345, math.nan)
    ('0.01235 ± 0.00040', '0.01235', '0.01235')
    """
    if value is None or stderr is None or math.isnan(stderr):
        return number(value, digits)
    if 0 < stderr < math.inf and PLAIN[0] <= abs(value) < PLAIN[1]:
        decimals = 1 - math.floor(math.log10(stderr))
        if 0 <= decimals <= 7 and not (value and float(f"{value:.{decimals}f}") == 0):
            return f"{value:,.{decimals}f} ± {stderr:.{decimals}f}"
    return f"{number(value, digits)} ± {number(stderr, 2)}"


def with_interval(value: float | None, bounds: Sequence[float] | None, digits: int = 4) -> str:
    """A number and its 95 % interval, with digits that fit its width.

    >>> with_interval(0.012345, (0.0115, 0.0133)), with_interval(0.012345, None)
    ('0.01235 (95 %: 0.01150 to 0.01330)', '0.01235')
    >>> with_interval(1.798e-5, (1.55e-5, 0.0437))  # whose digits are beyond those of its width
    '1.798e-5 (95 %: 1.550e-5 to 0.04370)'
    """
    if value is None or bounds is None or None in bounds:
        return number(value, digits)
    ends = (value, *bounds)
    half = (bounds[1] - bounds[0]) / 2
    if 0 < half < math.inf and PLAIN[0] <= max(map(abs, ends)) < PLAIN[1]:
        decimals = 1 - math.floor(math.log10(half))
        if 0 <= decimals <= 7 and not (value and float(f"{value:.{decimals}f}") == 0):
            middle, low, high = (f"{end:,.{decimals}f}" for end in ends)
            return f"{middle} (95 %: {low} to {high})"
    return f"{number(value, digits)} (95 %: {number(bounds[0], digits)} to {number(bounds[1], digits)})"


def ratio(numerator: float | None, denominator: float | None) -> str:
    """How many times one number is the other.

    >>> ratio(3.0, 2.0), ratio(1.0, 0.0)
    ('×1.50', '–')
    """
    return MISSING if numerator is None or not denominator else factor(numerator / denominator)


def times(value: float) -> str:
    """A factor in a sentence.

    >>> times(6.5641), times(1.0), times(1234.4), times(2.35e14)
    ('6.56 times', '1.00 times', '1,234 times', '2.35e14 times')
    """
    return f"{number(value)} times"


def times_of_log(log: float) -> str:
    """A factor in a sentence, given by its natural logarithm.

    >>> times_of_log(0.0), times_of_log(2000.0)
    ('1.00 times', '3.88e868 times')
    """
    return f"{of_log(log)} times"


def counted(count: float | None, one: str, many: str | None = None) -> str:
    """A number of things, in the singular or the plural.

    >>> counted(1, "layer"), counted(1200, "seed"), counted(0, "batch", "batches")
    ('1 layer', '1,200 seeds', '0 batches')
    """
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c", "d"]), listed(["a", "b"])
    ('a, b, c and 1 more', 'a, b')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def deviation(z: float | None) -> str:
    """A difference in standard errors, with its sign.

    >>> deviation(-2.136), deviation(None)
    ('-2.14', '–')
    """
    return MISSING if z is None else f"{z:+.2f}"


def of_log(log: float, digits: int = 3) -> str:
    """A size given by its natural logarithm, also beyond the range of float64.

    >>> of_log(math.log(0.0153652)), of_log(-2000.0), of_log(-math.inf)
    ('0.0154', '2.58e-869', '0')
    """
    if math.isnan(log) or math.isinf(log) or -700 < log < 700:
        return number(math.exp(log), digits)
    decades = log / math.log(10)
    exponent = math.floor(decades)
    mantissa = f"{10 ** (decades - exponent):.{digits - 1}f}"
    return f"{mantissa}e{exponent}" if float(mantissa) < 10 else f"{1:.{digits - 1}f}e{exponent + 1}"


def short(seconds: float) -> str:
    """A time that may be short, for people.

    >>> short(0.00213), short(0.0998), short(0.2), short(4.14), short(130.0)
    ('2.1 ms', '0.1 s', '0.2 s', '4.1 s', '2 min')
    """
    if seconds < 0.0995:  # from there on two digits are 0.1 s
        return f"{1000 * seconds:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 90 else duration(seconds)


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(42.2), duration(130), duration(7300), duration(4e5), duration(3.8e8)
    ('42 s', '2 min', '2 h 1 min', '5 days', '12 years')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    days = seconds / 86400
    if days >= 2:
        return f"{days:,.0f} days" if days < 730 else f"{days / 365.25:,.0f} years"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
