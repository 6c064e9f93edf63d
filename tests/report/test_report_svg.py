"""Figures in few bytes are the same figures: pixels, marks and labels."""

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from hessdiag.report import figures, svg
from hessdiag.report.drawing import NARROW
from hessdiag.report.spoken import spoken
from hessdiag.report.view import Dots, Heat, Series, Table

NOTHING = Table("", (), ())


def test_a_palette_keeps_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 4, (9, 7, 4)).astype(np.uint8) * 80
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG")
    packed = svg._with_palette(base64.b64encode(buffer.getvalue()).decode())
    image = Image.open(io.BytesIO(base64.b64decode(packed)))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image.convert("RGBA")), pixels)


def test_marks_stay_where_they_were():
    places = [(12.5, 3.0), (12.5, 3.0), (0.5, 40.25), (99.0, 1.0)]
    uses = "".join(f'<use href="#m0" x="{x}" y="{y}" class="s1"/>' for x, y in places)
    drawn = svg._MARKS.sub(lambda match: svg._one_line_of_marks(match, {}), uses)
    start, steps = re.fullmatch(r'<path d="M([^l]*)l([^"]*)" class="k0"/>', drawn).groups()
    number = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
    points = np.array([float(found) for found in number.findall(f"{start},{steps}")]).reshape(-1, 2).cumsum(axis=0)
    assert points == pytest.approx(np.array([places[0], *places[2:]]), abs=0.05)


def test_labels_of_an_axis_do_not_touch_on_a_phone():
    series = Series("share", (1e-6, 1e-1))
    chart = Dots("t", "c", "a", NOTHING, "chart", ("a name that takes room", "another such name"), (series,), "share")
    figure = figures._dots(chart, NARROW)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_visible()]
    inside = [box for box in boxes if box.x0 >= 0 and box.x1 <= figure.bbox.width]
    assert len(inside) >= 2
    assert all(after.x0 > before.x1 for before, after in pairwise(inside))


def test_a_figure_is_told_with_its_numbers():
    heat = Heat("t", "c", "A map.", NOTHING, "none", ("a", "b"), ((0.1, 0.25), (None, 0.2)), "share")
    assert spoken(heat) == "A map. Largest: 0.250 in row a, column b."
    dots = Dots("t", "c", "Ends.", NOTHING, "chart", ("x", "y"), (Series("end", (1.0, float("nan"))),), "value")
    assert spoken(dots) == "Ends. end: x 1.00."
