"""Axes of charts."""

import pytest

from hessdiag.report import figures
from hessdiag.report.view import Lines, Series, Table


def test_a_logarithmic_axis_has_a_tick_at_each_position():
    table = Table("sizes", ("size", "y"), (("8", "1"), ("64", "2"), ("512", "4")), text_columns=0)
    shown = Series("y", (1.0, 2.0, 4.0))
    chart = Lines("t", "c", "a", table, "spark", (8.0, 64.0, 512.0), (shown,), "size", "y", x_log=True)
    axes = figures._lines(chart).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["8", "64", "512"]
    places = axes.transData.transform([(8, 1), (64, 1), (512, 1)])[:, 0]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])
