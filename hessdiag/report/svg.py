"""What matplotlib draws, in a third of the bytes and in colours that follow the reader's light or dark scheme."""

import base64
import io
import re
from itertools import pairwise
from urllib.parse import quote

import numpy as np
from PIL import Image

from hessdiag.report.drawing import DARK

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_NEEDLESS = re.compile(
    r"^.*?(?=<svg )| <metadata>.*?</metadata>\n| font-family: 'DejaVu Sans';| transform=\"rotate\(-?0 [^\"]*\""
    r"| xmlns:xlink=\"[^\"]*\"|xlink:(?=href)|(?<=<g) id=\"[^\"]*\"|(?<=\n) +",  # nothing refers to groups
    re.S,
)
_COORDINATES = re.compile(r'(?<= )(d|x|y|transform)="[^"]*"')
_LONG = re.compile(r"(\.\d)\d+")
_SPACE = re.compile(r"\s+")
_AROUND_LETTERS = re.compile(r'(?<=[A-Za-z])\s+|\s+(?=[A-Za-z"])')
_LINES = re.compile(r"M [-\d. ]+\s(?:L [-\d. ]+\s*)+")
_POINT = re.compile(r"[ML] (\S+) (\S+)")
_ALONE = re.compile(r"<g>\s*(<(?:use|path|image)\b[^<>]*/>|<text\b[^<>]*>[^<>]*</text>)\s*</g>")
_TAG = re.compile(r"<[^>]*>")
_PLAIN = "<> !$'()*+,/:;=?@[]^`{|}"  # what may stand in an attribute of a page
_BETWEEN = re.compile(r">\s+<")
_MARK = re.compile(r"\b[mp][0-9a-f]{10}\b|\bimage[0-9a-f]{8,10}\b")  # what matplotlib calls marks, clips and images
_STYLE = re.compile(r' style="([^"]*)"')
_MARKS = re.compile(
    r'(?:<use href="(#\w+)" x="[^"]*" y="[^"]*"( class="\w+")/>)(?:<use href="\1" x="[^"]*" y="[^"]*"\2/>){2,}'
)
_PLACE = re.compile(r' x="([^"]*)" y="([^"]*)"')
_STROKES = re.compile(r'<path d="[^"]*"( clip-path="[^"]*" class="(\w+)")/>(?:<path d="[^"]*"\1/>)+')
_PATH = re.compile(r' d="([^"]*)"')
_PIXELS = re.compile(r'(?<=href="data:image/png;base64,)[^"]*')
COLOURS = 256  # of a picture with a palette


def compact(text: str) -> str:
    """The same picture: coordinates to a tenth of a point, each style written once, and colours as variables."""
    text = _COORDINATES.sub(_short, _NEEDLESS.sub("", text))
    while (found := _ALONE.sub(r"\1", text)) != text:
        text = found
    names = {colour.lower(): f"--c{number}" for number, colour in enumerate(DARK)}
    for colour, name in names.items():
        text = text.replace(f": {colour}", f": var({name})")
    marks: dict[str, str] = {}
    text = _MARK.sub(lambda match: marks.setdefault(match[0], f"{match[0][0]}{len(marks)}"), _BETWEEN.sub("><", text))
    styles: dict[str, str] = {}
    text = _STYLE.sub(lambda match: f' class="{styles.setdefault(match[1], f"s{len(styles)}")}"', text)
    lines = {name for style, name in styles.items() if style.startswith("fill: none")}
    text = _STROKES.sub(lambda match: _one_path(match) if match[2] in lines else match[0], text)
    markers: dict[tuple[str, str], str] = {}
    text = _MARKS.sub(lambda match: _one_line_of_marks(match, markers), text)
    text = _PIXELS.sub(lambda match: _with_palette(match[0]), text)
    light = ";".join(f"{name}:{colour}" for colour, name in names.items())
    dark = ";".join(f"{names[colour.lower()]}:{other}" for colour, other in DARK.items())
    classes = "".join(f".{name}{{{style}}}" for style, name in styles.items())
    scheme = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    classes += "".join(f".{name}{{fill:none;marker:url(#{name})}}" for name in markers.values())
    head, defs, rest = text.partition("<defs>")
    marks_drawn = "".join(
        f'<marker id="{name}" markerUnits="userSpaceOnUse" overflow="visible"><use href="{mark}"{style}/></marker>'
        for (mark, style), name in markers.items()
    )
    return f"{head}<style>text{{font-family:{FONTS}}}{scheme}{classes}</style>{defs}{marks_drawn}{rest}"


def _one_path(match: re.Match[str]) -> str:
    """Strokes of one style as one path."""
    return f'<path d="{"".join(_PATH.findall(match[0]))}"{match[1]}/>'


def _one_line_of_marks(match: re.Match[str], markers: dict[tuple[str, str], str]) -> str:
    """The same mark at several places: an unseen line with a mark at each of its points."""
    name = markers.setdefault((match[1], match[2]), f"k{len(markers)}")
    return f'<path d="{_absolute_line(_PLACE.findall(match[0]))}" class="{name}"/>'


def _absolute_line(places: list[tuple[str, str]]) -> str:
    return _line([(round(10 * float(x)), round(10 * float(y))) for x, y in places])


def _with_palette(data: str) -> str:
    """A picture of few colours with one byte for each pixel, not four: the same pixels."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    colours, indices = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colours) > COLOURS:
        return data
    picture = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), "P")
    picture.putpalette(colours.tobytes(), "RGBA")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def data_uri(text: str) -> str:
    """A picture as an address: within <img>, its ids stay its own and nothing in it can run.

    >>> data_uri('<svg width="3">100 % of "it"</svg>')
    "data:image/svg+xml,<svg width='3'>100 %25 of %22it%22</svg>"
    """
    return "data:image/svg+xml," + quote(_TAG.sub(lambda tag: tag[0].replace('"', "'"), text), safe=_PLAIN)


def _short(match: re.Match[str]) -> str:
    """Coordinates to a tenth, and lines by how far each point is from the one before.

    >>> _short(re.match(r'(d)="[^"]*"', 'd="M 1.234567 0 L 2 3 L 4.5 5 z"'))
    'd="M1.2,0l.8,3,2.5,2z"'
    """
    if match[1] != "d":
        return _LONG.sub(r"\1", match[0])
    found = _LINES.sub(lambda run: _absolute_line(_POINT.findall(run[0])), match[0])
    return _SPACE.sub(",", _AROUND_LETTERS.sub("", _LONG.sub(r"\1", found)))


def _line(points: list[tuple[int, int]]) -> str:
    """A line through points that are given in tenths."""
    steps = [(x - before[0], y - before[1]) for before, (x, y) in pairwise(points)]
    (x, y), numbers = points[0], [number for step in steps if step != (0, 0) for number in step]
    return f"M{_tenths(x)},{_tenths(y)}l{','.join(map(_tenths, numbers or [0, 0]))}".replace(",-", "-")


def _tenths(number: int) -> str:
    """A number of tenths.

    >>> _tenths(-5), _tenths(120), _tenths(13)
    ('-.5', '12', '1.3')
    """
    whole, part = divmod(abs(number), 10)
    return "-" * (number < 0) + (f"{whole or ''}.{part}" if part else f"{whole}")
