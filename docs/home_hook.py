"""mkdocs hook: the home page begins with the first screen of README.md, which is written once."""

from pathlib import Path
from typing import Any

MARK = "<!-- first screen of README.md -->"
END = "<!-- end of the first screen -->"
README = Path(__file__).parent.parent / "README.md"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the first screen where a page asks for it, with links that hold from docs/."""
    return markdown.replace(MARK, README.read_text("utf-8").partition(END)[0].replace("](docs/", "]("))
