"""A reader who types a page's commands from top to bottom finds every file that they name."""

import re

import pytest

from tests.docs.test_docs import PAGES, ROOT, console, relative

FILE = re.compile(r"(?<![\w/{}.*-])[\w{}.*-][\w{}./*-]*\.(?:pt|npz|json|safetensors|toml|py)\b")
WRITES = re.compile(r"(?:-o|--output|--save|\d?>)\s*['\"]?([\w.{}/-]+)")
MAKES = {  # what scripts save, into the folder of --out where they have one
    "examples/digits.py": ["batch.npz", r"(mlp|cnn)-(init|trained)\.pt", r"epoch-\d+\.pt"],
    "examples/train_32x32.py": [r"(lenet|mlp)-\d+\.pt", r"batch\.npz"],
    "python net.py": [r"trained\.pt"],  # the tutorial's
    "hessdiag init": [r"hessdiag\.toml"],
}


def commands(text):
    """Where commands stand in a page, those in blocks and those within sentences; with whether it is a block."""
    for match in re.finditer(r"```(?P<kind>\w+)[^\n]*\n(?P<body>.*?)```", text, re.DOTALL):
        prompt = {"console": "$ ", "yaml": "- run: ", "sh": ""}.get(match["kind"])
        for line in re.finditer(
            r"^\s*(?P<command>(?:[^\\\n]|\\.)+)", match["body"].replace("\\\n", "  "), re.MULTILINE
        ):
            if prompt is not None and line["command"].startswith(prompt):
                yield match.start("body") + line.start(), line["command"].removeprefix(prompt), True
    outside = re.sub(r"```.*?```", lambda match: " " * len(match[0]), text, flags=re.DOTALL)
    for match in re.finditer(r"`((?:hessdiag|torchrun|python) [^`]+)`", outside):
        yield match.start(), match[1], False


def made(command):
    """Patterns of the files that a command leaves behind."""
    patterns = [re.escape(name) for name in WRITES.findall(command)]
    for start, names in MAKES.items():
        patterns += names if start in command else []
    if re.search(r"\b(save|savez\w*|write_\w+|touch)\(", command):
        for name in re.findall(r"'([\w.{}-]+\.\w+)'", command):
            patterns.append(re.sub(r"\\{\w+\\}", r"[\\w.]+", re.escape(name)))
    return patterns


def needed(command, in_block):
    """Files that a command reads. Names in capitals and train.py in a sentence stand for the reader's own."""
    reads = WRITES.sub(" ", command)
    if " -c " in reads or reads.startswith("printf"):
        return
    for name in FILE.findall(reads):
        own = name.split("/")[-1].split(".")[0]
        stands_for = own.isupper() or own == "missing" or "{" in name or (not in_block and name.endswith(".py"))
        if not stands_for:
            yield name


def missing(text):
    """Commands of a page that name a file which no earlier one made, with that file."""
    steps = list(commands(text))
    there = [(end, re.escape(name)) for end, name, _ in console.files(text)]
    there += [(start, pattern) for start, command, _ in steps for pattern in made(command)]
    for start, command, in_block in steps:
        for name in needed(command, in_block):
            before = [pattern for end, pattern in there if end < start]
            ours = name.startswith(("examples/", "docs/", "tests/")) and (ROOT / name).exists()
            if not ours and not any(re.fullmatch(pattern, name.removeprefix("./")) for pattern in before):
                yield command, name


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_are_made_before_they_are_used(page):
    if page.name in ("CHANGELOG.md", "cli.md"):  # no page to follow; generated from --help
        return
    assert list(missing(page.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("`hessdiag eigs model.pt`", "model.pt"),
        ("```console\n$ hessdiag eigs m.pt --data batch.npz\n```\n\n`torch.save`", "m.pt"),
        ("```sh\nhessdiag eigs train.py:setup\n```", "train.py"),
        ('```console\n$ hessdiag eigs a.py:f\n```\n\n```python title="a.py"\nx\n```\n', "a.py"),
        ("```console\n$ hessdiag report r.json\n$ hessdiag chain -o r.json\n```", "r.json"),
        ("```console\n$ hessdiag report r.json -o r.json\n```", "r.json"),
    ],
)
def test_what_is_not_there_is_found(text, name):
    assert next(iter(missing(text)))[1] == name


@pytest.mark.parametrize(
    "text",
    [
        "```console\n$ python -c \"torch.save(m, 'm.pt')\"\n$ hessdiag eigs m.pt\n```",
        "```console\n$ python -c \"[torch.save(m, f'e-{n}.pt') for n in (0, 1)]\"\n$ hessdiag eigs e-1.pt -o x.html\n```",
        "```python title=\"a.py\"\nx\n```\n\n```console\n$ hessdiag eigs 'a.py:f(x=1)'\n```",
        "`hessdiag diag-share A.pt B.pt` and `hessdiag eigs train.py:setup`",
        "```sh\npython examples/digits.py --out .\nhessdiag eigs mlp-init.pt --data batch.npz\n```",
    ],
)
def test_what_is_made_is_known(text):
    assert list(missing(text)) == []
