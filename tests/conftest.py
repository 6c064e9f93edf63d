"""Shared by all rooms: quiet threads, the command line in this process, fakes of its slow parts, documents to show."""

import os
import sys
from types import SimpleNamespace

import pytest

# Before torch is imported, and for processes that tests start: threads of several workers fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    import torchvision  # noqa: F401
except Exception:  # the registry's torchvision beside a CPU build of torch: transformers would trip over it
    sys.modules["torchvision"] = None  # type: ignore[assignment]


from hessdiag.cli import main
from hessdiag.questions.pages import render
from tests import preloaded
from tests.fake_share import fake_share
from tests.shown import DOCUMENTS


@pytest.fixture(autouse=True)
def _one_seed():
    """Every test starts from the same global random state, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def programs():
    """A folder with a `hessdiag` and a `python` that have imported torch, see `preloaded`; one server for all tests."""
    with preloaded.programs(os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"}) as folder:
        yield folder


class Outcome(SimpleNamespace):
    """What `hessdiag ...` left: exit code, stdout and stderr."""


@pytest.fixture
def hessdiag(monkeypatch, tmp_path, capfd):
    """Run the command line in an empty folder, in this process, through the same door as the console script."""
    monkeypatch.chdir(tmp_path)
    own = [name for name in os.environ if name.startswith("HESSDIAG_")]
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", *own):
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
    import torch

    from hessdiag.problem import load
    from hessdiag.questions.diag_share import measure as measuring

    state = SimpleNamespace(requests=[], calls=[], result=fake_share(), raises=None)
    problem = SimpleNamespace(device=torch.device("cpu"))

    def load_problem(request, shared):
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


@pytest.fixture(params=DOCUMENTS)
def doc(request):
    return DOCUMENTS[request.param]()


@pytest.fixture(scope="session")
def _pages():
    return {}


@pytest.fixture
def html(doc, request, _pages):
    """The page of `doc`, drawn once for all tests that only look at it."""
    name = request.node.callspec.params["doc"]
    if name not in _pages:
        _pages[name] = render(doc, "html")
    return _pages[name]
