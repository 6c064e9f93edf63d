"""What a document says of the arithmetic that its numbers came from."""

import json
import types

import pytest
import torch

from hessdiag.cli.main import run
from hessdiag.questions.common import provenance

SCRIPT = """
import torch
torch.set_float32_matmul_precision("medium")
torch.backends.cudnn.benchmark = True

def setup():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2), [(torch.randn(4, 3), torch.arange(4) % 2)], "ce"
"""


@pytest.fixture
def flags():
    kept = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(kept[0])
    torch.backends.cudnn.benchmark = kept[1]


def test_flags_of_a_script_are_set_aside_and_said(tmp_path, flags, capsys):
    (tmp_path / "net.py").write_text(SCRIPT)
    assert run(["eigs", f"{tmp_path}/net.py:setup", "--json", "--no-progress"]) == 0
    said = json.loads(capsys.readouterr().out)["provenance"]["arithmetic"]
    assert said == {"float32": "IEEE", "set_aside": ["bf16 in matrix products on a CPU"], "repeatable": True}
    assert torch.get_float32_matmul_precision() == "medium"


def test_what_is_said_of_a_gpu(monkeypatch, flags):
    of_device = {"name": "Some GPU", "total_memory": 80, "major": 9, "minor": 0}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(**of_device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 7)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    found = provenance.gpu("cuda:0")
    assert (found["name"], found["compute_capability"], found["cuda"]) == ("Some GPU", "9.0", "13.0")
    assert (found["peak_allocated_bytes"], found["peak_reserved_bytes"]) == (5, 7)
    assert found["deterministic_algorithms"] is False
    said = provenance.arithmetic("cuda:0")
    assert said.set_aside[-2:] == ("tf32 in matrix products on a GPU", "cudnn.benchmark")
    assert not said.repeatable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\nGCC version: 12.3.0\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("", None),
    ],
)
def test_version_of_the_driver(monkeypatch, text, expected):
    monkeypatch.setattr(provenance.Path, "read_text", lambda path: text)
    assert provenance.driver() == expected


def test_pages_say_it():
    from hessdiag.questions.pages import render
    from tests.documents import document

    doc = document("diag-share")
    doc["provenance"] |= {
        "arithmetic": {"float32": "IEEE", "set_aside": ["tf32 in convolutions on a GPU"], "repeatable": False},
        "gpu": {"driver": "580.65.06", "cuda": "13.0", "cudnn": None},
    }
    text = render(doc, "html")
    assert "IEEE float32; set aside: tf32 in convolutions on a GPU; last digits vary" in text
    assert "driver 580.65.06, cuda 13.0" in text
