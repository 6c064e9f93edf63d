"""Hosts that do not answer: how long is waited for them, and what comes of it. All servers are on this machine."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.load import ProblemRequest, load_problem
from hessdiag.problem.loading import online


@pytest.fixture
def silent():
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing():
    """The address of a server that answers every question with 404."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_who_says_no_answers_and_who_says_nothing_does_not(silent, refusing, monkeypatch):
    monkeypatch.setattr(online, "PATIENCE", 5.0)
    assert online.answers(refusing)
    monkeypatch.setattr(online, "PATIENCE", 0.3)
    began = time.monotonic()
    assert not online.answers(silent)
    assert time.monotonic() - began < 2


def test_a_name_fails_without_the_import_of_what_would_load_it(silent, tmp_path):
    pytest.importorskip("huggingface_hub")
    code = (
        "import sys\n"
        "from hessdiag.cli.main import run\n"
        "code = run(['eigs', 'hf:some/model'])\n"
        "print([name for name in ('transformers', 'torchvision') if sys.modules.get(name)], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": silent,
        "HF_HUB_CACHE": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    began = time.monotonic()
    outcome = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 3
    first, second, imported = outcome.stderr.splitlines()
    assert first == "error: some/model is not in this machine's cache, and huggingface.co cannot be reached from here."
    assert second.startswith("  try: hf download some/model --local-dir model")
    assert imported == "[]"
    assert time.monotonic() - began >= online.PATIENCE  # the server was asked, and waited for


@pytest.mark.parametrize("name", [" ", "a b", "-x", "x/y/z", "a..b", "é"])
def test_names_that_the_hub_cannot_have(name):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(SpecError, match=r"is no name that the hub can have\. .") as caught:
        load_problem(ProblemRequest(model=f"hf:{name}()"))
    assert caught.value.hint.startswith("hf:NAME or hf:OWNER/NAME")


def downloads(name, weights=None, pretrained=False):
    """As torchvision and timm make a model."""
    model = nn.Linear(4, 3)
    if weights or pretrained:
        model.load_state_dict(torch.hub.load_state_dict_from_url(f"https://example.invalid/{name}.pth"))
    return model


@pytest.fixture
def libraries(monkeypatch, tmp_path):
    models = types.SimpleNamespace(get_model=lambda name, **options: downloads(name, **options))
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=downloads))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(online, "hub_answers", lambda: False)
    asked = []
    monkeypatch.setattr(online, "answers", lambda address: bool(asked.append(address)))
    return asked


@pytest.mark.parametrize(
    ("spec", "host"),
    [
        ("torchvision:net(weights='DEFAULT')", "download.pytorch.org"),
        ("torchvision:net(pretrained=True)", "download.pytorch.org"),
        ("timm:net(pretrained=True)", "huggingface.co"),
    ],
)
def test_pretrained_weights_offline(spec, host, libraries, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", None)  # nobody is asked
        with pytest.raises(LoadError) as caught:
            load_problem(ProblemRequest(spec, device="cpu"))
    assert caught.value.what == (
        f"the pretrained weights of net are not in this machine's cache, and {host} cannot be reached from here."
    )
    library = spec.partition(":")[0]
    assert caught.value.hint == f"'{library}:net', with random weights, and --weights FILE"
    assert libraries == ([online.TORCHVISION] if library == "torchvision" else [])
    checkpoints = tmp_path / "hub/checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": torch.full((3, 4), 0.5), "bias": torch.zeros(3)}, checkpoints / "net.pth")
    problem = load_problem(ProblemRequest(spec, device="cpu"))
    assert bool((problem.model.weight == 0.5).all())


def test_random_weights_ask_nobody(libraries):
    load_problem(ProblemRequest("torchvision:net", device="cpu"))
    load_problem(ProblemRequest("timm:net(pretrained=False)", device="cpu"))
    assert libraries == []
