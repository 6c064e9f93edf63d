"""mkdocs hook: the home page begins with the first screen of README.md, which is written once."""

import re
from pathlib import Path
from typing import Any

MARK = "<!-- first screen of README.md -->"
END = "<!-- end of the first screen -->"
README = Path(__file__).parent.parent / "README.md"
EXAMPLE = re.compile(r"\[(examples/[^]]+)\]\(\1\)")  # lies beside docs/, where no page can link to it


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the first screen where a page asks for it, with links that hold from docs/."""
    screen = README.read_text("utf-8").partition(END)[0].replace("](docs/", "](")
    return markdown.replace(MARK, EXAMPLE.sub(r"`\1`", screen))
