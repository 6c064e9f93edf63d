"""What matplotlib draws, in half the bytes and in colours that follow the reader's light or dark scheme."""

import re
from urllib.parse import quote

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
_LINE_ON = re.compile(r"(?<=\d)\s+L (?=[-\d])")
_ALONE = re.compile(r"<g>\s*(<(?:use|path|image)\b[^<>]*/>|<text\b[^<>]*>[^<>]*</text>)\s*</g>")
_TAG = re.compile(r"<[^>]*>")
_PLAIN = "<> !$'()*+,/:;=?@[]^`{|}"  # what may stand in an attribute of a page
_BETWEEN = re.compile(r">\s+<")
_MARK = re.compile(r"\b[mp][0-9a-f]{10}\b|\bimage[0-9a-f]{8,10}\b")  # what matplotlib calls marks, clips and images
_STYLE = re.compile(r' style="([^"]*)"')


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
    light = ";".join(f"{name}:{colour}" for colour, name in names.items())
    dark = ";".join(f"{names[colour.lower()]}:{other}" for colour, other in DARK.items())
    classes = "".join(f".{name}{{{style}}}" for style, name in styles.items())
    scheme = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    head, defs, rest = text.partition("<defs>")
    return f"{head}<style>text{{font-family:{FONTS}}}{scheme}{classes}</style>{defs}{rest}"


def data_uri(text: str) -> str:
    """A picture as an address: within <img>, its ids stay its own and nothing in it can run.

    >>> data_uri('<svg width="3">100 % of "it"</svg>')
    "data:image/svg+xml,<svg width='3'>100 %25 of %22it%22</svg>"
    """
    return "data:image/svg+xml," + quote(_TAG.sub(lambda tag: tag[0].replace('"', "'"), text), safe=_PLAIN)


def _short(match: re.Match[str]) -> str:
    """Coordinates to a tenth and commas between, without a letter for each of several lines.

    >>> _short(re.match(r'(d)="[^"]*"', 'd="M 1.234567 0 L 2 3 L 4.5 5 z"'))
    'd="M1.2,0,2,3,4.5,5z"'
    """
    found = _LONG.sub(r"\1", match[0])
    if match[1] != "d":
        return found
    if "C" not in found and "Q" not in found:
        found = _LINE_ON.sub(" ", found)
    return _SPACE.sub(",", _AROUND_LETTERS.sub("", found))
