"""mkdocs hook: formulas between dollars become SVG when the site is built, so that pages need no script and no network.

Matplotlib sets them; it is installed with hessdiag. GitHub shows the same dollars as formulas too.
"""

import base64
import html
import io
import re
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image

FONT_SIZE = 10.5  # points: the x-height then equals that of the page's text
STYLE: Any = {"mathtext.fontset": "cm", "svg.hashsalt": "hessdiag", "savefig.facecolor": "none"}

_SPAN = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_NAKED = r"\s*(\\[A-Za-z]+|[^\s{}\\])"
_BRACED = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
# LaTeX that mathtext spells in another way, in this order.
_SPELLINGS = (
    (r"\\tfrac", r"\\frac"),
    (r"\\(frac|sqrt|mathbb)(?![A-Za-z{])" + _NAKED, r"\\\1{\2}"),
    (r"(\\frac" + _BRACED + ")" + _NAKED, r"\1{\2}"),
    (r"\\[bB]ig+[lr](?![A-Za-z])", ""),
    (r"\\(le|ge|ne)(?![A-Za-z])", r"\\\1q"),
    (r"\\top(?![A-Za-z])", r"\\mathsf{T}"),
    (r"\\operatorname", r"\\,\\operatorname"),
)
_LIMITS = re.compile(r"\\(sum|prod)([_^])")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page."""
    return _SPAN.sub(lambda match: image(html.unescape(match[2]).strip(), block=match[1] == "div"), content)


@cache
def image(formula: str, *, block: bool) -> str:
    """An <img> of a formula, aligned with the text, with its source as the alternative text."""
    svg, width, height, depth = _svg(_spelled(formula, block=block))
    data = base64.b64encode(svg).decode()
    place = "" if block else f"vertical-align:-{depth:.3f}em;"
    tag = (
        f'<img class="math" alt="{html.escape(formula, quote=True)}" src="data:image/svg+xml;base64,{data}" '
        f'style="width:{width:.3f}em;height:{height:.3f}em;{place}">'
    )
    return f'<div class="math">{tag}</div>' if block else tag


def _spelled(formula: str, *, block: bool) -> str:
    """The formula as mathtext takes it: fractions large on their own line, limits beside the sign within text."""
    formula = " ".join(formula.split())
    for there, here in _SPELLINGS:
        formula = re.sub(there, here, formula)
    formula = _TEXT.sub(lambda match: rf"\mathrm{{{match[1]}}}".replace(" ", r"\ "), formula)
    formula = formula.replace(r"\frac", r"\dfrac") if block else _LIMITS.sub(r"\\\1{}\2", formula)
    return f"${formula}$"


def _svg(formula: str) -> tuple[bytes, float, float, float]:
    """The drawing, and its width, height and depth below the baseline in units of the font size."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        depth = math_to_image(formula, buffer, prop=FontProperties(size=FONT_SIZE), format="svg")
    svg = buffer.getvalue()
    width, height = (float(re.search(rf' {side}="([\d.]+)pt"'.encode(), svg)[1]) for side in ("width", "height"))
    return svg, width / FONT_SIZE, height / FONT_SIZE, depth / FONT_SIZE
