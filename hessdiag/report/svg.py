"""What matplotlib draws, in half the bytes and in colours that follow the reader's light or dark scheme."""

import re

from hessdiag.report.drawing import DARK

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_NEEDLESS = re.compile(
    r"^.*?(?=<svg )| <metadata>.*?</metadata>\n| font-family: 'DejaVu Sans';| transform=\"rotate\(-?0 [^\"]*\""
    r"| xmlns:xlink=\"[^\"]*\"|xlink:(?=href)|(?<=<g) id=\"[^\"]*\"|(?<=\n) +",  # nothing refers to groups
    re.S,
)
_COORDINATES = re.compile(r'(?<= )(d|x|y|transform)="[^"]*"')
_LONG = re.compile(r"(\.\d\d)\d+")
_LINE_ON = re.compile(r"(?<=\d)\s+L (?=[-\d])")
_ALONE = re.compile(r"<g>\s*(<(?:use|path|image)\b[^<>]*/>|<text\b[^<>]*>[^<>]*</text>)\s*</g>")
_STYLE = re.compile(r' style="([^"]*)"')


def compact(text: str) -> str:
    """The same picture: two digits of coordinates, each style written once, and colours as variables."""
    text = _COORDINATES.sub(_short, _NEEDLESS.sub("", text))
    while (found := _ALONE.sub(r"\1", text)) != text:
        text = found
    names = {colour.lower(): f"--c{number}" for number, colour in enumerate(DARK)}
    for colour, name in names.items():
        text = text.replace(f": {colour}", f": var({name})")
    styles: dict[str, str] = {}
    text = _STYLE.sub(lambda match: f' class="{styles.setdefault(match[1], f"s{len(styles)}")}"', text)
    light = ";".join(f"{name}:{colour}" for colour, name in names.items())
    dark = ";".join(f"{names[colour.lower()]}:{other}" for colour, other in DARK.items())
    classes = "".join(f".{name}{{{style}}}" for style, name in styles.items())
    scheme = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    head, defs, rest = text.partition("<defs>\n")
    return f"{head}<style>text{{font-family:{FONTS}}}{scheme}{classes}</style>\n{defs}{rest}"


def _short(match: re.Match[str]) -> str:
    """Coordinates with two digits after the point; a line goes on without saying so where there are no curves.

    >>> _short(re.match(r'd="[^"]*"', 'd="M 1.234567 0 L 2 3 L 4.5 5 z"'))
    'd="M 1.23 0 2 3 4.5 5 z"'
    """
    found = _LONG.sub(r"\1", match[0])
    return found if "C" in found or "Q" in found else _LINE_ON.sub(" ", found)
