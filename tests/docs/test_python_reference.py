"""The Python reference lists what can be imported as it says, and all of it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hessdiag

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
LISTED = {page: re.findall(r"^::: (\S+)$", (REFERENCE / page).read_text("utf-8"), re.MULTILINE)
          for page in ("python.md", "linalg.md")}  # fmt: skip
PACKAGES = ("hessdiag", "hessdiag.results", "hessdiag.linalg")


@pytest.mark.parametrize("path", [path for page in LISTED.values() for path in page])
def test_each_is_imported_as_it_says(path):
    package, _, name = path.rpartition(".")
    assert package in PACKAGES
    namespace = {}
    exec(f"from {package} import {name} as found", namespace)
    found = namespace["found"]
    assert found.__name__ == name
    assert found is getattr(importlib.import_module(package), name)
    assert found.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_all_public_names_are_listed_once(package):
    listed = [path for page in LISTED.values() for path in page]
    public = set(importlib.import_module(package).__all__) - {"__version__", "linalg", "results"}
    assert sorted(path for path in listed if path.rpartition(".")[0] == package) == sorted(
        f"{package}.{name}" for name in public
    )
    assert set(dir(importlib.import_module(package))) >= public


def test_exit_codes_are_no_name_of_the_package():
    assert "ExitCode" not in hessdiag.__all__
    assert not hasattr(hessdiag, "ExitCode")


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_no_torch(package):
    code = f"import sys, {package}; assert not {{'torch', 'numpy', 'scipy'}} & set(sys.modules); dir({package})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("page", [f"{name}.md" for name in ("python", "linalg")])
def test_arguments_and_errors_are_documented(page):
    """Google docstrings: every argument of a function is described, and an example is run."""
    for path in LISTED[page]:
        package, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(package), name)
        if isinstance(found, type) or not found.__code__.co_argcount:
            continue
        count = found.__code__.co_argcount + found.__code__.co_kwonlyargcount
        for argument in found.__code__.co_varnames[:count]:
            assert re.search(rf"^\s+{argument}: ", found.__doc__, re.MULTILINE), f"{path}: {argument}"
