"""The Python reference lists what can be imported as it says, and all of it."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hessdiag

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
LISTED = {page: re.findall(r"^::: (\S+)$", (REFERENCE / page).read_text("utf-8"), re.MULTILINE)
          for page in ("python.md", "linalg.md", "optimizers.md")}  # fmt: skip
PACKAGES = ("hessdiag", "hessdiag.results", "hessdiag.linalg", "hessdiag.optimizers")


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
    public = set(importlib.import_module(package).__all__) - {"__version__", "linalg", "optimizers", "results"}
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


def test_importing_the_package_alone_reads_registries_of_plain_tuples():
    code = "import sys, hessdiag; assert not {'dataclasses', 'inspect', 'msgspec', 'click'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


FUNCTIONS = [
    path
    for page in LISTED.values()
    for path in page
    if inspect.isfunction(getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2]))
]


@pytest.mark.parametrize("path", FUNCTIONS)
def test_arguments_are_documented(path):
    package, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(package), name)
    for argument in inspect.signature(found).parameters:
        assert re.search(rf"^\s+{argument}: ", found.__doc__, re.MULTILINE), argument


@pytest.mark.parametrize("path", [path for path in FUNCTIONS if "linalg" in path])
def test_solvers_name_their_source_their_errors_and_an_example(path):
    text = getattr(importlib.import_module("hessdiag.linalg"), path.rpartition(".")[2]).__doc__
    assert re.search(r"\b(1[89]|20)\d\d\)", text)
    assert all(word in text for word in ("Raises:", "TypeError: ", "ValueError: ", ">>> ", "(n, n)"))
