"""Every page of the gallery names a command that can be typed, and shows what that command draws."""

import re

import click
import pytest

from hessdiag.cli.main import cli
from tests.docs.test_docs import DOCS, relative, tool

images = tool("make_images")
PAGES = sorted(set((DOCS / "gallery").glob("*.md")) - {DOCS / "gallery" / "index.md"})


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_parse_and_images_are_there(page):
    text = page.read_text("utf-8")
    runs = list(images.runs(text))
    shown = [path for run in runs for _, path in run.images]
    assert shown, "no figure behind a command"
    assert len(shown) == len(re.findall(r"!\[", text)), "an image without a chart's heading"
    for path in shown:
        assert (page.parent / path).is_file(), f"python docs/make_images.py {relative(page)}"
    for run in runs:
        if run.script:
            assert (DOCS.parent / run.script).is_file()
            assert len(run.images) <= 1
            continue
        name, *arguments = run.arguments
        with click.Context(cli, **cli.context_settings) as context:  # commands remember the help option of the first
            command = cli.get_command(context, name)
            assert command is not None
            assert command.make_context(name, arguments, parent=context)
    outputs = [run.arguments[run.arguments.index("-o") + 1] for run in runs if run.images]
    assert len(set(outputs)) == len(outputs)
    written = {
        run.arguments[run.arguments.index("-o") + 1]: ".svg" if run.script else ".html" for run in runs if run.images
    }
    assert all(name.endswith(suffix) for name, suffix in written.items())


def test_every_page_is_in_the_overview_and_every_image_on_a_page():
    overview = (DOCS / "gallery" / "index.md").read_text("utf-8")
    assert {page.name for page in PAGES} == set(re.findall(r"\(([\w-]+\.md)\)", overview))
    shown = {path for page in PAGES for run in images.runs(page.read_text("utf-8")) for _, path in run.images}
    drawn = {f"../images/gallery/{path.name}" for path in (DOCS / "images" / "gallery").iterdir()}
    assert drawn <= shown


def test_figures_are_small():
    for image in (DOCS / "images" / "gallery").iterdir():
        assert image.stat().st_size < 150_000
