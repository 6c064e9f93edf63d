"""Completion in the shells themselves, where they are installed; and what is offered for every kind of value."""

import os
import shutil
import subprocess
import sys

import pytest

OFFERED = [
    ("hessdiag van", "vanishing"),
    ("hessdiag vanishing --init he_", "he_normal"),
    ("hessdiag eigs buil", "builtin:lenet"),
    ("hessdiag eigs m.py:f --device c", "cuda"),
    ("hessdiag eigs m.py:f --loss n", "nll"),
    ("hessdiag sharpness m.py:f --optimizer ada", "adamw"),
    ("hessdiag spectrum m.py:f --operator g", "ggn"),
    ("hessdiag eigs m.py:f --fail-if larg", "largest_step"),
    ("hessdiag eigs m.py:f --dat", "--data"),
]


def offered(words):
    asked = {"_HESSDIAG_COMPLETE": "fish_complete", "COMP_WORDS": words, "COMP_CWORD": words.split()[-1]}
    return ask([sys.executable, "-m", "hessdiag"], **asked).split()


def ask(command, cwd=None, **environment):
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize(("words", "value"), OFFERED)
def test_names_are_offered(words, value):
    assert f"plain,{value}" in offered(words)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("hessdiag eigs m", "file"),
        ("hessdiag eigs m.py:f --data b", "file"),
        ("hessdiag eigs m.py:f --weights w", "file"),
        ("hessdiag eigs m.py:f -o r", "file"),
        ("hessdiag eigs m.py:f --config h", "file"),
        ("hessdiag report r", "file"),
        ("hessdiag eigs m.py:f --resume k", "dir"),
    ],
)
def test_files_are_left_to_the_shell(words, kind):
    assert offered(words)[0] == f"{kind},{words.split()[-1]}"


@pytest.fixture
def program(tmp_path):
    """The console script, as it would be on the PATH."""
    found = tmp_path / "bin" / "hessdiag"
    found.parent.mkdir()
    found.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hessdiag "$@"\n')
    found.chmod(0o755)
    return {"PATH": f"{found.parent}{os.pathsep}{os.environ['PATH']}"}


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here")


@needs("bash")
def test_bash(tmp_path, program):
    line = """
        eval "$(hessdiag completion bash)"
        COMP_WORDS=(hessdiag vanishing --init he_) COMP_CWORD=3
        complete -p hessdiag; _hessdiag_completion hessdiag; echo "${COMPREPLY[@]}"
    """
    shown = ask(["bash", "--norc", "-c", line], cwd=tmp_path, **program)
    assert "-F _hessdiag_completion hessdiag" in shown
    assert "he_uniform he_normal" in shown


@needs("zsh")
def test_zsh(tmp_path, program):
    line = 'autoload -Uz compinit; compinit -u -D; eval "$(hessdiag completion zsh)"; print ${_comps[hessdiag]}'
    assert ask(["zsh", "-f", "-c", line], cwd=tmp_path, **program).strip() == "_hessdiag_completion"


@needs("fish")
def test_fish(tmp_path, program):
    (tmp_path / "model.pt").touch()
    (tmp_path / "c.fish").write_text(ask([sys.executable, "-m", "hessdiag", "completion", "fish"]))
    for words, value in (("hessdiag vanishing --init he_", "he_normal"), ("hessdiag eigs mod", "model.pt")):
        shown = ask(["fish", "-N", "-c", f"source c.fish; complete -C '{words}'"], cwd=tmp_path, **program)
        assert value in shown.split()
