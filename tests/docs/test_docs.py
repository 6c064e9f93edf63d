"""The documentation is true: its commands run, its links lead somewhere, what is generated is not stale."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")})


def tool(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


console = tool("console")


def relative(page):
    return str(page.relative_to(ROOT))


generate = tool("generate_reference")


def with_console():
    return [page for page in PAGES if any(console.blocks(page.read_text("utf-8")))]


@pytest.fixture(scope="session")
def programs():
    with preloaded.programs(console.settings()) as folder:
        yield folder


@pytest.mark.parametrize("page", with_console(), ids=relative)
def test_commands_print_what_is_quoted(page, tmp_path, programs):
    text = page.read_text("utf-8")
    try:
        outputs = list(console.printed(text, console.new_folder(tmp_path), programs))
    except console.CommandError as error:
        pytest.fail(f"{relative(page)}, {error}", pytrace=False)
    wrong = [
        f"{relative(page)}, {said}" for block, lines in outputs for said in console.differences(text, block, lines)
    ]
    assert outputs
    if wrong:
        pytest.fail("\n".join([*wrong, f"python docs/console.py {relative(page)}"]), pytrace=False)


@pytest.mark.parametrize("page", with_console(), ids=relative)
def test_quoted_outputs_are_there(page):
    for block in console.blocks(page.read_text("utf-8")):
        body = page.read_text("utf-8")[block.start : block.stop].splitlines()
        silent = block.show == "none" or all(
            re.search(r">|hessdiag init$|torch.save|np.savez", c) for c in block.commands
        )
        assert silent or len(body) > len(block.commands), f"no output: {block.commands}; run docs/console.py"


def python(page):
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))


@pytest.mark.parametrize("page", list(filter(python, PAGES)), ids=relative)
def test_python_blocks_run(page, tmp_path, programs):
    done = subprocess.run(
        [programs / "python", "-c", python(page)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_resolve(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists() or found == DOCS / tool("schema_hook").FILE, f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(found), f"{target} names no heading"


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("nav:")[2]
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} == set(re.findall(r"[\w/-]+\.md", navigation))


@pytest.mark.parametrize("path", generate.GENERATED, ids=relative)
def test_what_is_generated_is_not_stale(path):
    assert path.read_text("utf-8") == generate.GENERATED[path](), "run python docs/generate_reference.py"


def test_the_published_schema_is_whole():
    schema = json.loads(tool("schema_hook").schema())
    told = {one["if"]["properties"]["command"]["const"] for one in schema["allOf"]}
    assert told == set(schema["properties"]["command"]["enum"])
    references = re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema))
    assert set(references) <= set(schema["$defs"])


@pytest.mark.parametrize("page", sorted((DOCS / "concepts").glob("*.md")), ids=relative)
def test_concepts_say_their_limits(page):
    headings = re.findall(r"^## (.+)$", page.read_text("utf-8"), re.MULTILINE)
    if page.name != "theory.md":
        assert headings[-2:] == ["Limitations", "References"]


def test_formulas_can_be_set():
    pytest.importorskip("matplotlib")
    hook = tool("math_hook")
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
        if DOCS not in page.parents:
            continue
        displayed = re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)
        inline = re.findall(r"\$([^$]+)\$", re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL))
        for formula in displayed + inline:
            assert hook.image(formula.strip(), block=False).startswith("<img")


def test_figures_are_small():
    for image in (DOCS / "images").glob("*.svg"):
        assert image.stat().st_size < 200_000
