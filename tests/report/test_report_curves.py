import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.textpath import TextPath

from hessdiag.report import characters, curves, figures, markdown, terminal
from hessdiag.report.drawing import COLOURS, NARROW, STYLE, WIDE
from hessdiag.report.view import Curve, Curves, Heat, Panel, Span, Table, View

EMPTY = Table("", ("", "x"), (("a", "1"),))


def chart(*panels, text="spark"):
    return Curves("t", "c", "a", EMPTY, text, panels, "backpropagations")


def decay(name="sgd", group=0, rate=0.1, points=11, **more):
    x = tuple(float(10 * index) for index in range(points))
    return Curve(name, x, tuple(10 ** (-rate * place / 10) for place in x), group, **more)


def drawn(chart, page=WIDE):
    with mpl.rc_context(STYLE):
        return curves.figure(chart, page)


def test_each_curve_is_drawn_where_it_is():
    one, two = decay("sgd"), Curve("adam", (0.0, 5.0, 400.0), (1.0, 0.5, 0.01), 1)
    (axes,) = drawn(chart(Panel("loss", (one, two)))).axes
    held = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in axes.get_lines()}
    assert held[one.x] == one.y
    assert held[two.x] == two.y
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 400
    assert axes.get_yscale() == "log"


def test_marks_levels_and_limits():
    panel = Panel("loss", (decay(mark=(30.0, 0.5)),), levels=(0.9,), limits=(0.2, None))
    (axes,) = drawn(chart(panel)).axes
    (mark,) = [line for line in axes.get_lines() if line.get_marker() == curves.MARKS[0]]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([30.0], [0.5])
    assert any(set(line.get_ydata()) == {0.9} for line in axes.get_lines())
    assert 0.1 < axes.get_ylim()[0] < 0.2, "0.1 is cut off"
    assert axes.get_ylim()[1] > 1.0


def test_panels_share_the_x_axis_and_the_legend_names_each_group_once():
    radius = Panel("radius", (decay(group=0), decay("tr", 1)))
    rho = Panel("rho", (decay("tr", 1),), log=False, levels=(1.0,))
    figure = drawn(chart(Panel("loss", (decay(), decay("tr", 1), decay("tr", 1, 0.2, main=False))), radius, rho))
    first, second, third = figure.axes
    assert first.get_xlim() == second.get_xlim() == third.get_xlim()
    assert third.get_yscale() == "linear"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sgd", "tr"]


def test_twelve_are_told_apart_without_colour():
    styles = [curves._style(group) for group in range(12)]
    assert len({style["marker"] for style in styles}) == 12
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 12


def test_bands_of_predictions():
    spans = (Span("sgd", 20.0, 40.0, 300.0, (35.0, None)), Span("rms", 1e9, 5e9, float("inf"), (None,), 1))
    figure = drawn(chart(Panel("loss", (decay(),)), Panel("", spans=spans)))
    beneath = figure.axes[1]
    (bar,) = beneath.patches
    right = beneath.get_xlim()[1]
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == (20.0, pytest.approx(min(300.0, right)))
    assert {tuple(line.get_xdata()) for line in beneath.get_lines()} == {(40.0, 40.0), (35.0,)}
    assert [text.get_text() for text in beneath.texts] == ["5.0e9 →"]
    assert [label.get_text() for label in beneath.get_yticklabels()] == ["sgd", "rms"]


def test_what_never_happens_is_said():
    figure = drawn(
        chart(Panel("loss", (decay(),)), Panel("", spans=(Span("sgd", 1e9, float("inf"), float("inf"), ()),)))
    )
    assert [text.get_text() for text in figure.axes[1].texts] == ["never"]


@pytest.mark.parametrize("page", [WIDE, NARROW])
@pytest.mark.parametrize(("first", "last"), [(10, 400), (1, 1e6), (1e-4, 20.0), (3, 4), (7.0, 7.0)])
def test_places_along_x_are_few_round_and_apart(page, first, last):
    found = list(curves._places(first, last, page))
    assert len(found) <= 3 * (page.decades + 2)
    assert all(first <= place <= last for place in found)
    assert all(float(f"{place:.0e}") == pytest.approx(place) for place in found)
    if last >= 100 * first:
        assert len(found) >= 2


@pytest.mark.parametrize("page", [WIDE, NARROW])
@pytest.mark.parametrize(
    "panels",
    [
        (),
        (Panel("loss"),),
        (Panel("loss", (Curve("a", (), ()),)),),
        (Panel("loss", (Curve("a", (0.0,), (1.0,)),)),),
        (Panel("loss", (Curve("a", (None, 3.0), (None, float("nan"))),)),),
        (Panel("loss", (Curve("$x$ <b>", (1.0, 2.0), (1e-300, 1e300)),)),),
        (Panel("rho", (Curve("a", (1.0, 2.0), (0.5, 0.5)),), log=False),),
    ],
)
def test_anything_may_be_missing(panels, page):
    text = figures.svg(chart(*panels), page)
    assert text.startswith("<svg ")
    assert text == figures.svg(chart(*panels), page)
    view = View("q", (), ("h", "s"), (), (chart(*panels),))
    assert terminal.render(view, width=60)
    assert markdown.render(view)


def test_a_terminal_shows_each_curve_on_the_same_scales():
    fast, slow = decay("fast", 0, 0.2), decay("slow", 1, 0.1)
    lines = {curve.name: text for curve, text in characters.races(chart(Panel("loss", (fast, slow))), 30)}
    assert set(map(len, lines.values())) == {30}
    assert lines["fast"][0] == lines["slow"][0] == "█"
    assert lines["fast"][-1] == "▁"
    assert characters.LEVELS.index(lines["slow"][-1]) == round(0.5 * (len(characters.LEVELS) - 1))
    levels = [characters.LEVELS.index(sign) for sign in lines["fast"]]
    assert levels == sorted(levels, reverse=True)


def test_a_run_that_ends_early_leaves_room_and_others_are_not_drawn():
    short, other = decay("short", 0, points=4), decay("other", 1, main=False)
    found = characters.races(chart(Panel("loss", (short, other, decay("long", 2)))), 40)
    texts = {curve.name: text for curve, text in found}
    assert set(texts) == {"short", "long"}
    # 30 of 10 to 100, on a logarithmic axis
    assert len(texts["short"].rstrip()) == 2 + round(np.log10(3) * 38)
    assert len(texts["long"].rstrip()) == 40


def test_no_line_of_it_is_wider_than_the_terminal_and_greyscale_is_enough():
    names = tuple(decay(f"tr-rmsprop({index})", index, 0.01 * index) for index in range(9))
    view = View("q", (), ("h", "s"), (), (chart(Panel("loss over the reference loss", names)),))
    for width in (40, 80, 100):
        assert max(map(len, terminal.render(view, width=width).splitlines())) <= width
    assert len(COLOURS) < len(names)


def test_a_heat_map_may_have_axes_and_a_mark():
    axis = ("+1", "0", "-1")
    heat = Heat("t", "c", "a", EMPTY, "none", axis, ((1.0, 2.0, 3.0),) * 3, "loss", x_axis="across", y_axis="up")
    bare, marked = figures.svg(replace(heat, x_axis="", y_axis="")), figures.svg(replace(heat, marked=(1, 1)))
    assert {"across", "up"} <= set(re.findall(r">([^<>\n]+)</text>", marked))
    assert not {"across", "up"} & set(re.findall(r">([^<>\n]+)</text>", bare))
    assert marked != figures.svg(heat)


def test_long_labels_beside_a_map_that_is_not_square_are_inside_of_it():
    rows = tuple(f"0.attention.out_proj.weight{row}" for row in range(16))
    columns = tuple(f"-0.00{column}" for column in range(14))
    heat = Heat("t", "c", "a", EMPTY, "none", rows, ((1.0,) * 14,) * 16, "density", columns, x_axis="eigenvalue")
    drawn = figures.svg(heat)
    at_the_end = "|".join(re.findall(r"\.(s\d+)\{[^}]*text-anchor: end", drawn))
    ends = re.findall(rf'<text class="(?:{at_the_end})" x="([\d.]+)"[^>]*>([^<]+)<', drawn)
    assert [name for _, name in ends] == list(rows)
    assert all(float(end) > TextPath((0, 0), name, size=9).get_extents().width for end, name in ends)
