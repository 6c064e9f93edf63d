"""Packages that are not there, places that are no files: each refusal ends in one line, and its cure works."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.packages import lacking
from hessdiag.questions.common.runs.pieces import Pieces

DOCUMENT = str(Path(__file__).parents[1] / "documents/blocks-objective.json")
LACK = """
import sys
name, *args = sys.argv[1:]
sys.modules[name] = None
sys.argv = ["hessdiag", *args]
from hessdiag.__main__ import main
main()
"""


def without(package, *args, folder):
    command = [sys.executable, "-c", LACK, package, *args]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("package", "args"),
    [
        ("rich", ["ls"]),
        ("click", ["--help"]),
        ("msgspec", ["report", DOCUMENT]),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(package, args, tmp_path):
    outcome = without(package, *args, folder=tmp_path)
    assert outcome.returncode == 3
    assert outcome.stdout == ""
    assert outcome.stderr.endswith(f" needs {package}, which is not installed.\n  try: pip install {package}\n")
    assert len(outcome.stderr.splitlines()) == 2


def test_weights_whose_reader_is_missing_are_not_damaged(hessdiag, tmp_path, monkeypatch):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "m.pt")
    save_file({"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}, tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    outcome = hessdiag("eigs", "m.pt", "--weights", "w.safetensors")
    assert outcome.code == 3
    assert (
        outcome.err
        == "error: this command needs safetensors, which is not installed.\n  try: pip install safetensors\n"
    )


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_the_answer_is_printed_where_a_page_cannot_be_drawn(package, tmp_path):
    outcome = without(package, "report", DOCUMENT, "-o", "r.html", folder=tmp_path)
    assert outcome.returncode == 3
    assert "norm of the Hessian" in outcome.stdout
    assert (
        f"(it needs {package}, which is not installed).\n  try: pip install {package}; or -o r.json" in outcome.stderr
    )
    assert not (tmp_path / "r.html").exists()


def test_a_package_that_does_not_work_and_code_of_our_own():
    broken = ImportError("libcudart.so.12: cannot open shared object file\nand more", name=None)
    what, cure = lacking(broken)
    assert what == "a package that does not work here: libcudart.so.12: cannot open shared object file"
    assert "--traceback" in cure
    assert lacking(ModuleNotFoundError("no", name="hessdiag.nothing")) is None
    assert lacking(ValueError("no")) is None


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["eigs", "m.pt", "-o", "out"], "-o out/report.html"),
        (["eigs", "m.pt", "-o", "sp ace"], "-o 'sp ace/report.html'"),
        (["eigs", "m.pt", "--save", "d.npz"], "--save d.npz/vectors.npz"),
        (["eigs", "m.pt", "--save", "out"], "--save out/vectors.npz"),
        (["eigs", "m.pt", "--save", "/dev/null"], "--save vectors.npz"),
        (["eigs", "m.pt", "--save", "v.pt"], "--save v.npz"),
        (["forward", "--init", "he_normal", "--solve", "median", "--save", "d.safetensors"], "--save d.safetensors/weights.safetensors"),
        (["forward", "--init", "he_normal", "--solve", "median", "--save", "/dev/null"], "--save weights.safetensors"),
    ],
)  # fmt: skip
def test_another_place_is_one_that_works(args, hint, hessdiag, tmp_path):
    for name in ("out", "sp ace", "d.npz", "d.safetensors"):
        (tmp_path / name).mkdir()
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "m.pt")
    refused = hessdiag(*args)
    assert refused.code == 2
    assert refused.err.splitlines()[1] == f"  try: {hint}"
    option, place = shlex.split(hint)
    assert (
        hessdiag(
            *args[: args.index(option)], option, place, *(["--depth", "2", "--width", "2"] * (args[0] == "forward"))
        ).code
        == 0
    )
    assert (tmp_path / place).is_file()


def test_init_names_no_file_that_it_would_not_write(hessdiag, tmp_path):
    (tmp_path / "hessdiag.toml").mkdir()
    for options in ([], ["--force"]):
        outcome = hessdiag("init", *options)
        assert outcome.code == 2
        assert outcome.err == "error: hessdiag.toml is a folder.\n  try: cd into another folder, then hessdiag init\n"
    (tmp_path / "hessdiag.toml").rmdir()
    assert hessdiag("init").code == 0
    assert "--force to overwrite it, or cd into another folder" in hessdiag("init").err


class TestResume:
    """Folders for finished pieces that cannot be one."""

    def hint(self, folder):
        with pytest.raises(SpecError) as caught:
            Pieces(folder, {"seed": 0})
        option, place = shlex.split(caught.value.hint.partition(", or")[0])
        assert option == "--resume"
        Pieces(place, {"seed": 0})  # works as it stands
        return place

    def test_devices(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert self.hint("/dev/null") == "pieces-2"
        assert self.hint("/dev/null") == "pieces-3"

    def test_files_and_folders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a file").write_text("x")
        assert self.hint("a file") == "a file-2"
        assert self.hint(".") == "pieces-2"
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        assert self.hint("..") == "pieces-2"

    def test_folders_of_another_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Pieces("kept", {"seed": 1})
        assert self.hint("kept") == "kept-2"
        Pieces("kept-3", {"seed": 2})
        assert self.hint("kept-3") == "kept-3-2"
        Pieces("kept", {"seed": 1})
        assert self.hint("kept") == "kept-4"
