"""Python specs: the user's scripts and modules, and whose fault an error is."""

import sys

import pytest

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.loading.python import load_object, load_value
from hessdiag.problem.spec import parse


def value(text):
    return load_value(parse(text), {})


def test_objects_functions_and_calls(folder):
    (folder / "train.py").write_text(
        "number = 7\ndef f(a=1, b=2): return a + b\nclass C:\n    x = 5\n    @staticmethod\n    def g(k): return k\n"
    )
    assert value("train.py:number") == 7
    assert value("train.py:f") == 3
    assert value("train.py:f(b=5)") == 6
    assert value("train.py:C.x") == 5
    assert value("train.py:C.g(k=(1, 2))") == (1, 2)
    assert callable(load_object(parse("train.py:f"), {}))
    assert value("train:f") == 3


def test_a_script_runs_once_per_session(folder):
    (folder / "train.py").write_text("log = []\nlog.append(1)\n")
    scripts = {}
    first = load_object(parse("train.py:log"), scripts)
    assert load_object(parse("./train.py:log"), scripts) is first
    assert load_object(parse("train.py:log"), {}) is not first


def test_a_script_may_be_named_like_a_library(folder):
    import json

    (folder / "json.py").write_text("mine = True\n")
    assert value("json.py:mine") is True
    assert sys.modules["json"] is json


def test_neighbours_can_be_imported_and_dataclasses_work(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "helper_xyz.py").write_text("k = 3\n")
    (folder / "sub" / "train.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "import pickle\nimport helper_xyz\n"
        "@dataclass\nclass D:\n    k: int = helper_xyz.k\n"
        "def f(): return pickle.loads(pickle.dumps(D())).k\n"
    )
    assert value("sub/train.py:f") == 3


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("nofile.py:f", LoadError, "nofile.py does not exist"),
        ("trian.py:f", LoadError, "train.py"),
        ("train.py:buld_model", SpecError, "train.py:build_model"),
        ("train.py:zzz", SpecError, "train.py has no 'zzz'"),
        ("train.py:build_model(widht=3)", SpecError, "unexpected keyword argument 'widht'"),
        ("train.py:needs", SpecError, "missing 1 required positional argument: 'k'"),
        ("train.py:number(a=1)", SpecError, "cannot be called"),
        ("train.py:fails", LoadError, "ZeroDivisionError: division by zero"),
        ("train.py:fails", LoadError, "train.py:5)"),
        ("train.py:type_error", LoadError, "train.py:7)"),
        ("train.py:in_library", LoadError, "train.py:10)"),
        ("train.py:leaves", LoadError, "SystemExit"),
        ("train.py:ours", LoadError, "my own words"),
        ("syntax.py:f", LoadError, "syntax.py:2"),
        ("inner.py:f", LoadError, "No module named 'not_installed_pkg'"),
        ("inner:f", LoadError, "inner.py:1)"),
        ("no_such_module:f", LoadError, "there is no module 'no_such_module'"),
        ("train.sub:f", LoadError, "train"),
        ("hff:f", LoadError, "hf:f"),
        ("./sub.py:f", LoadError, "is a folder"),
    ],
)
def test_errors(folder, text, error, said):
    (folder / "sub.py").mkdir()
    (folder / "syntax.py").write_text("a = 1\ndef f(:\n")
    (folder / "inner.py").write_text("import not_installed_pkg\ndef f(): pass\n")
    (folder / "train.py").write_text(
        "import json, sys\n"
        "number = 7\n"
        "def build_model(width=1): return width\n"
        "def fails():\n"
        "    return 1 / 0\n"
        "def type_error():\n"
        "    return 'a' + 1\n"
        "def needs(k): return k\n"
        "def in_library():\n"
        "    return json.loads('{')\n"
        "def leaves(): sys.exit(3)\n"
        "def ours():\n"
        "    from hessdiag.errors import LoadError\n"
        "    raise LoadError('my own words')\n"
    )
    with pytest.raises(error) as caught:
        value(text)
    assert said in str(caught.value)
    assert "\n" not in caught.value.what
    assert caught.value.exit_code == (2 if error is SpecError else 3)


@pytest.mark.parametrize("file", ["src/some_pkg_xyz/model.py", "src/some_pkg_xyz/model/__init__.py"])
def test_a_module_in_src_is_answered_with_where_it_can_be_imported(folder, file):
    (folder / file).parent.mkdir(parents=True)
    (folder / file).touch()
    with pytest.raises(LoadError) as caught:
        value("some_pkg_xyz.model:Net")
    assert caught.value.hint == "PYTHONPATH=src hessdiag ... some_pkg_xyz.model:Net"


@pytest.mark.parametrize(("home", "path"), [("src/", "PYTHONPATH=src "), ("", "")])
def test_a_file_of_a_package_is_answered_with_its_name_as_a_module(folder, home, path):
    package = folder / f"{home}some_pkg_xyz"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text("from .layers import Net\n")
    with pytest.raises(LoadError, match="relative import") as caught:
        value(f"{home}some_pkg_xyz/model.py:Net")
    assert caught.value.hint == f"{path}hessdiag ... some_pkg_xyz.model:Net"


MESSY = """
import argparse
import torch.nn as nn
class Block(nn.Module):
    def __init__(self, channels): ...
    def forward(self, x): ...
class Smooth(nn.Module):
    def forward(self, logits, y): ...
class Net(nn.Module):
    def __init__(self, width=8): ...
    def forward(self, x): ...
class Rows: ...
def main(): argparse.ArgumentParser().parse_args()
"""


def test_advice_on_a_script_names_what_is_in_it(folder):
    (folder / "mine.py").write_text(MESSY)
    for text in ("mine.py", "mine.py:", "mine.py:setup"):
        with pytest.raises(SpecError) as caught:
            value(text)
        assert caught.value.hint == "mine.py:Net"  # Block needs an argument, and Smooth is a loss
    (folder / "mine.py").write_text(MESSY + "def build_net(): ...\ndef setup(n=3): ...\ndef make(x): ...")
    with pytest.raises(SpecError, match=r"did you mean mine\.py:build_net or mine\.py:setup\?"):
        value("mine.py")


def test_advice_reads_scripts_that_are_none(folder):
    for content in (b"def f(:", b"\0", b"\xff\xfe", b"(" * 5000, b""):
        (folder / "odd.py").write_bytes(content)
        with pytest.raises(SpecError, match=r"did you mean odd\.py:setup\?"):
            value("odd.py")


def test_a_call_that_lacks_arguments_is_advised_as_a_whole_word(folder):
    (folder / "data.py").write_text("class Rows:\n    def __init__(self, dim, size=4, *, root): ...\n")
    with pytest.raises(SpecError) as caught:
        value("data.py:Rows(size=3)")
    assert caught.value.hint == "'data.py:Rows(size=3, dim=..., root=...)', of Rows(dim, size=4, *, root)"


def test_a_bare_word_that_is_a_folder_is_taken_for_one_in_the_advice(folder):
    (folder / "pictures").mkdir()
    for text in ("pictures", "pictures(size=8)"):
        with pytest.raises(SpecError) as caught:
            value(text)
        assert caught.value.hint == f"./{text}"
