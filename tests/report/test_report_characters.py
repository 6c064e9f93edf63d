import math

import pytest

from hessdiag.report import characters
from hessdiag.report.numbers import number, with_error
from hessdiag.report.view import Dots, Lines, Series, Table

EMPTY = Table("", ("",), ())


def dots(*values):
    labels = tuple(f"row {index}" for index in range(len(values)))
    return Dots("t", "c", "a", EMPTY, "chart", labels, (Series("s", tuple(values)),), "axis")


def lines(x, *series):
    named = tuple(Series(str(index), values, group=index) for index, values in enumerate(series))
    return Lines("t", "c", "a", EMPTY, "chart", tuple(map(float, x)), named, "x", "y")


def length(bar):
    return sum(characters.EIGHTHS.index(sign) / 8 for sign in bar)


def test_bar_lengths_are_proportional_to_the_logarithm():
    bars = [bar for _, bar, _, _ in characters.bars(dots(1e-3, 1e-2, 1e-1, 1.0), 100)]
    full = length(bars[3])
    assert [length(bar) / full for bar in bars[1:]] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


def test_the_smallest_bar_is_still_seen_and_a_missing_one_is_not():
    bars = [bar for _, bar, _, _ in characters.bars(dots(1e-3, 1.0, 0.0, math.nan), 80)]
    assert [bool(bar.strip()) for bar in bars] == [True, True, False, False]


def test_exponential_decay_is_a_straight_line():
    x = range(0, 110, 10)
    rows = characters.line_plot(lines(x, tuple(10.0 ** -(depth / 10) for depth in x)), 60)
    marks = [
        (r, c) for r, (_, cells) in enumerate(rows) for c, (sign, _) in enumerate(cells) if sign == characters.MARKS[0]
    ]
    assert len(marks) == 11
    slope = (marks[-1][0] - marks[0][0]) / (marks[-1][1] - marks[0][1])
    assert all(abs(marks[0][0] + slope * (c - marks[0][1]) - r) <= 1 for r, c in marks)


def test_two_series_have_two_marks_and_share_one_where_they_meet():
    rows = characters.line_plot(lines((1, 2, 3), (1.0, 10.0, 100.0), (100.0, 10.0, 1.0)), 40)
    signs = [sign for _, cells in rows for sign, _ in cells]
    assert (signs.count("●"), signs.count("◆"), signs.count("◉")) == (2, 2, 1)


def test_nothing_to_draw_gives_no_plot():
    assert characters.line_plot(lines((1, 2), (0.0, math.nan)), 40) == []


def test_sparkline_is_monotone_in_its_values():
    spark = characters.sparkline(tuple(10.0**k for k in range(8)), 20)
    assert spark == characters.LEVELS


def test_sparkline_of_many_values_fits():
    assert len(characters.sparkline(tuple(1.0 + k for k in range(500)), 40)) == 40


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (128, "128"),
        (1234567, "1,234,567"),
        (0.99996, "1.000"),
        (-0.5493, "-0.5493"),
        (9.99999e-4, "1.000e-3"),
        (1e-300, "1.000e-300"),
        (123456.7, "123,457"),
        (5e22, "5.000e22"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
    ],
)
def test_numbers(value, text):
    assert number(value, 4) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.5, 0.0, "0.5000 ± 0"),
        (0.5, math.nan, "0.5000"),
        (12.3456, 0.5, "12.35 ± 0.50"),
        (1e-9, 2e-10, "1.000e-9 ± 2.0e-10"),
        (5.0, 400.0, "5.000 ± 400"),
    ],
)
def test_numbers_with_errors(value, stderr, text):
    assert with_error(value, stderr) == text
