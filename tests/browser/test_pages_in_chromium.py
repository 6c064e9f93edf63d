"""Pages of real commands in a headless Chromium: nothing is fetched, cut off or out of reach of a screen reader."""

import contextlib
import io
import os
import shutil
from pathlib import Path

import pytest
import torch

from browser import networks
from hessdiag.cli.main import run

pytestmark = pytest.mark.browser

NETWORKS = Path(networks.__file__)
COMMANDS = {  # page: arguments, and the most pages on paper
    "diag-share": (["diag-share", f"{NETWORKS}:mlp"], 4),
    "eigs": (["eigs", f"{NETWORKS}:mlp", "--lowest", "3", "--highest", "3"], 4),
    "spectrum": (["spectrum", f"{NETWORKS}:mlp"], 5),
    "bounds": (["bounds", f"{NETWORKS}:mlp"], 4),
    "blocks": (["blocks", f"{NETWORKS}:mlp"], 5),
    "forward": (["forward", "--depth", "16", "--width", "8", "--seeds", "50"], 7),
    "vanishing": (["vanishing", "--depth", "16", "--width", "4", "--seeds", "8"], 6),
    "chain": (["chain", "--seeds", "200"], 6),
    "escape": (["escape", f"{NETWORKS}:mlp", "--lr", "0.1", "--seeds", "2", "--budget", "60", "--landscape"], 7),
    "diag-share-deep": (["diag-share", f"{NETWORKS}:deep"], 6),
    "blocks-deep": (["blocks", f"{NETWORKS}:deep"], 7),
    "diag-share-hf": (["diag-share", "hf:{folder}/bert", "--batch-size", "4", "--rows", "100"], 6),
    "eigs-hf": (
        ["eigs", "hf:{folder}/bert", "--batch-size", "4", "--lowest", "1", "--highest", "2", "--tol", "0.1"],
        5,
    ),
    "report": (["report", str(NETWORKS.parents[1] / "documents" / "report.json")], 24),
    "trajectory": (["diag-share", *(f"{{folder}}/step{step}.pt" for step in range(3)), "--loss", "ce"], 6),
}
WIDTHS = (360, 800, 1600)


@pytest.fixture(scope="session")
def page_of(tmp_path_factory):
    """Runs a command once and gives the path of its page."""
    folder = tmp_path_factory.mktemp("pages")
    networks.bert(folder / "bert")
    model, _, _ = networks.mlp()
    for step in range(3):
        torch.save(model, folder / f"step{step}.pt")
        for parameter in model.parameters():
            parameter.data *= 1.2

    def page(name):
        path = folder / f"{name}.html"
        if not path.exists():
            arguments = [word.format(folder=folder) for word in COMMANDS[name][0]]
            with contextlib.redirect_stdout(io.StringIO()):
                assert run([*arguments, "-o", str(path), "--allow-inexact", "--no-progress", "--no-config"]) == 0, name
        return path

    return page


@pytest.fixture(scope="session")
def chromium():
    """The browser of the system, else playwright's own. In CI it must be there."""
    sync_api = sync_playwright_or_skip()
    with sync_api.sync_playwright() as playwright:
        try:
            found = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        except sync_api.Error as error:
            skip_or_fail(f"needs chromium on the PATH, or `playwright install chromium`: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


def sync_playwright_or_skip():
    try:
        import axe_playwright_python  # noqa: F401
        from playwright import sync_api
    except ImportError as error:
        skip_or_fail(f"needs pip install -e '.[browser]': {error}")
    return sync_api


def skip_or_fail(reason):
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextlib.contextmanager
def opened(chromium, path, width=1600, scheme="light"):
    """A page, of which anything said on the console and any request but the page's own is an error."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(path.as_uri())
    assert said == [path.as_uri()]
    yield page
    page.close()


OVERFLOW = """() => [document.documentElement.scrollWidth - document.documentElement.clientWidth,
    ...[...document.querySelectorAll('main *, header *')]
        .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))]"""


def reaches_a_long_table_by_keyboard(page):
    box = page.locator(".scroll.long").first
    box.focus()
    page.keyboard.press("PageDown")
    page.wait_for_function("() => document.activeElement.scrollTop > 0")
    assert box.get_attribute("aria-label").startswith("Per layer")


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_requested_cut_off_or_out_of_reach(chromium, page_of, name):
    from axe_playwright_python.sync_playwright import Axe

    path = page_of(name)
    assert path.stat().st_size < 1_000_000
    for scheme in ("light", "dark"):
        for width in WIDTHS:
            with opened(chromium, path, width, scheme) as page:
                assert page.evaluate(OVERFLOW) == [0], (width, scheme)
                if (scheme, width) in (("light", 360), ("dark", 1600)):
                    found = Axe().run(page)
                    assert not found.response["violations"], found.generate_report()
    if name == "blocks-deep":
        with opened(chromium, path, 360) as page:
            reaches_a_long_table_by_keyboard(page)
    with opened(chromium, path, 680) as page:  # A4 less its margins
        page.emulate_media(media="print")
        assert page.evaluate(OVERFLOW.replace("!e.closest('.scroll') && ", "")) == [0]  # the edge of the paper cuts
        printed = page.pdf(prefer_css_page_size=True)
    pages = printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page/")
    assert 1 <= pages <= COMMANDS[name][1], pages


def test_a_phone_gets_figures_drawn_for_it_and_text_that_is_read(chromium, page_of):
    sizes = {}
    for width in (360, 1600):
        with opened(chromium, page_of("vanishing"), width) as page:
            sizes[width] = page.evaluate("() => [...document.images].map(i => [i.naturalWidth, i.width])")
    assert {natural for natural, _ in sizes[1600]} == {864}
    assert all(shown > 0.85 * natural for natural, shown in sizes[360])  # 12 pixels stay above 10


def test_a_shortened_name_shows_in_full_where_the_pointer_rests(chromium, page_of):
    with opened(chromium, page_of("diag-share-hf")) as page:
        cell = page.locator("th", has_text="11.attention.output.dense").first
        assert cell.get_attribute("title") == "bert.encoder.layer.11.attention.output.dense"


def test_the_skip_link_leads_to_the_numbers(chromium, page_of):
    with opened(chromium, page_of("chain")) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.getBoundingClientRect().left") >= 0
        page.keyboard.press("Enter")
        assert page.url.endswith("#numbers")
