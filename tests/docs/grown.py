"""A copy of the package in which the steps of a section of CONTRIBUTING were taken."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def section(title):
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def grown(folder, text, files, registry, entries):
    """Copy the package, write files by name, and add the section's one line to a registry's tuple of entries."""
    shutil.copytree(ROOT / "hessdiag", folder / "hessdiag", ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in files:
        assert f"`{name}`" in text
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code, "utf-8")
    (line,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    assert f"`{registry}`" in text
    listed = re.compile(rf"(\n{entries} = \(\n.*?)(\n\)\n)", re.DOTALL)
    before = (folder / registry).read_text("utf-8")
    assert len(listed.findall(before)) == 1
    (folder / registry).write_text(listed.sub(rf"\1\n{line}\2", before), "utf-8")
    return folder
