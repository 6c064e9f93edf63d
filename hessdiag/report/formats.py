"""In which forms an answer can be had, and the suffixes of files that ask for them."""

FORMATS = ("text", "json", "markdown", "html")
SUFFIXES = {
    ".txt": "text",
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}
