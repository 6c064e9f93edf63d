"""Fakes of the slow parts: the command line is tested without a Hessian."""

from types import SimpleNamespace

import pytest
import torch

from cli.fake_share import fake_share
from hessdiag.cli import main


class Outcome(SimpleNamespace):
    """What `hessdiag ...` left: exit code, stdout and stderr."""


@pytest.fixture
def hessdiag(monkeypatch, tmp_path, capfd):
    """Run the command line in an empty folder, in this process, through the same door as the console script."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def call(*args):
        capfd.readouterr()
        code = main.run([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def fake(monkeypatch):
    """Replace loading and measuring; returns what the command line asked for, and takes what it shall get."""
    from hessdiag.problem import load
    from hessdiag.questions.diag_share import measure as measuring

    state = SimpleNamespace(requests=[], calls=[], result=fake_share(), raises=None)
    problem = SimpleNamespace(device=torch.device("cpu"))

    def load_problem(request):
        state.requests.append(request)
        return problem

    def measure(problem, **options):
        state.calls.append(options)
        options["progress"](0, 10, "10 parameters: all 10 rows")
        if state.raises is not None:
            raise state.raises
        options["progress"](10, 10, "rows")
        return state.result

    monkeypatch.setattr(load, "load_problem", load_problem)
    monkeypatch.setattr(measuring, "diag_share", measure)
    return state
