"""Files of other programs are known by their content, and the command that is named works."""

import gzip
import json
import re
import runpy
import shutil
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessdiag.cli import main
from hessdiag.errors import HessdiagError, LoadError, UntrustedFileError
from hessdiag.problem.files import foreign
from hessdiag.problem.files.checkpoint import read
from hessdiag.problem.load import ProblemRequest, load_problem

SCRIPT = """
import torch
from torch import nn
from types import SimpleNamespace
def build(): return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
X, Y = torch.linspace(-1, 1, 12).reshape(6, 2), torch.arange(6) % 3
class Two(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.net, self.form = build(), form
    def forward(self, x):
        z = self.net(x)
        forms = {"tuple": (z, z.mean()), "alone": (z,), "named": SimpleNamespace(hidden=x, logits=z)}
        return (forms | {"mapping": {"features": x, "logits": z}, "tensor": z})[self.form]
def two(form): return Two(form), (X, Y), None
def own(form): return Two(form), (X, Y), lambda output, target: nn.functional.cross_entropy(output[0], target)
"""


@pytest.fixture
def here(folder):
    (folder / "m.py").write_text(SCRIPT)
    return folder


def refused(model, **options):
    with pytest.raises(HessdiagError) as caught:
        load_problem(ProblemRequest(model, device="cpu", **options))
    assert "\n" not in caught.value.what
    return caught.value


def field(number, content):
    """A field of a protobuf message: a number, or bytes with their length."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2]) + bytes([len(content) & 0x7F | 0x80, len(content) >> 7]) + content


ONNX = field(1, 10) + field(2, b"pytorch") + field(7, field(1, b"node" * 99)) + field(8, field(2, b"\x01"))
KERAS = b"\x89HDF\r\n\x1a\n" + bytes(3000) + b"keras_version"


def zipped(names):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "{}")

    return write


def tarred(path):
    (path.parent / "a").write_text("a")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "a", "a")


def content(data):
    return lambda path: path.write_bytes(data)


FILES = {
    "onnx": (content(ONNX), "an ONNX model", "train.py:build_model"),
    "keras hdf5": (content(KERAS), "a Keras model", "train.py:build_model"),
    "keras zip": (zipped(["config.json", "metadata.json", "model.weights.h5"]), "a Keras model", "build_model"),
    "hdf5": (content(b"\x89HDF\r\n\x1a\n" + bytes(99)), "an HDF5 file", "h5py.File"),
    "gguf": (content(b"GGUF\3\0\0\0" + bytes(99)), "a GGUF model", "hf:NAME"),
    "tflite": (content(b"\x1c\0\0\0TFL3" + bytes(99)), "TensorFlow Lite", "build_model"),
    "parquet": (content(b"PAR1" + bytes(99)), "a Parquet table", "read_parquet"),
    "arrow": (content(b"ARROW1\0\0" + bytes(99)), "an Arrow table", "read_feather"),
    "matlab": (content(b"MATLAB 5.0 MAT-file" + bytes(99)), "a MATLAB file", "loadmat"),
    "csv": (content(b"a,b\n1,2\n3,4\n"), "table of text (CSV), which is data", "--data"),
    "json": (content(b'{"a": 1}'), "is JSON", "FILE.py:f"),
    "html": (content(b"\n<!DOCTYPE html><html>"), "a web page", "download"),
    "png": (content(b"\x89PNG\r\n\x1a\n"), "an image", "FILE.py:f"),
    "tar": (tarred, "a tar archive", "tar xf"),
    "bzip2": (content(b"BZh91AY"), "bzip2", "bunzip2"),
    "xz": (content(b"\xfd7zXZ\0"), "xz", "unxz"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"words")), "a gzip file", "gunzip"),
    "zip": (zipped(["a.txt"]), "neither of torch.save nor of numpy.savez", "unzip"),
}


@pytest.mark.parametrize("role", ["model", "weights", "data"])
@pytest.mark.parametrize("kind", FILES)
def test_files_are_answered(kind, role, here):
    if (kind, role) == ("csv", "data"):
        return  # it is read
    write, what, hint = FILES[kind]
    write(here / "thing.pt")
    error = refused("./thing.pt") if role == "model" else refused("m.py:build", **{role: "./thing.pt"})
    assert error.exit_code == 3
    assert what in error.what
    assert "thing.pt" in error.what
    assert hint in error.hint


@pytest.mark.parametrize("cut", range(1, len(ONNX), 7))
def test_half_an_onnx_file_is_damaged_and_no_crash(cut, tmp_path):
    (tmp_path / "m").write_bytes(ONNX[:cut])
    with pytest.raises(LoadError):
        read(tmp_path / "m")


def test_bytes_that_are_nothing(tmp_path):
    generator = np.random.default_rng(0)
    for first in range(256):
        (tmp_path / "m").write_bytes(bytes([first]) + generator.bytes(int(generator.integers(0, 300))))
        with pytest.raises(LoadError) as caught:
            read(tmp_path / "m")
        assert "\n" not in caught.value.what


class Marker:
    """Creates a folder when it is unpickled."""

    def __reduce__(self):
        import os

        return os.mkdir, ("ran",)


class TestFolders:
    @pytest.fixture
    def bert(self, here):
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
        )
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        model.save_pretrained(here / "bert")
        return model

    @pytest.mark.parametrize("spec", ["./bert", "bert/model.safetensors", "bert/config.json"])
    def test_a_hugging_face_folder(self, spec, bert):
        error = refused(spec)
        assert error.hint == "hf:bert"
        assert error.exit_code == (2 if "safetensors" in spec else 3)
        assert type(load_problem(ProblemRequest(error.hint)).model) is type(bert)

    def test_its_weights(self, bert, here):
        (here / "b.py").write_text(
            "import transformers\ndef f():\n    config = transformers.AutoConfig.from_pretrained('bert')\n"
            "    return transformers.BertForSequenceClassification(config)\n"
        )
        problem = load_problem(ProblemRequest("b.py:f", weights="./bert", device="cpu"))
        assert torch.equal(problem.model.classifier.weight, bert.classifier.weight)

    def test_weights_that_its_files_lack_are_random_and_said(self, bert, here):
        bert.bert.save_pretrained(here / "base")
        config = json.loads((here / "base" / "config.json").read_text())
        config["architectures"] = ["BertForSequenceClassification"]
        (here / "base" / "config.json").write_text(json.dumps(config))
        notes = load_problem(ProblemRequest("hf:./base", device="cpu")).notes
        assert "weights: classifier.bias, classifier.weight not in ./base, drawn at random" in notes
        assert not any("drawn at random" in note for note in load_problem(ProblemRequest("hf:./bert")).notes)

    def test_a_timm_folder(self, here):
        (here / "t").mkdir()
        (here / "t" / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 3}))
        assert refused("./t").hint == "timm:resnet18 --weights t/model.safetensors"

    @pytest.mark.parametrize("spec", ["./peft", "peft/adapter_config.json", "peft/adapter_model.safetensors"])
    def test_a_peft_adapter(self, spec, here):
        self.adapter(here / "peft")
        error = refused(spec)
        assert error.exit_code == 3
        assert "is a PEFT adapter of org/base" in error.what
        assert error.hint == "hf:peft as MODEL, which puts it on org/base"

    @pytest.mark.parametrize("text", ["./peft", "peft/adapter_model.safetensors"])
    def test_a_peft_adapter_as_weights(self, text, here):
        self.adapter(here / "peft")
        assert "is a PEFT adapter of org/base" in refused("m.py:build", weights=text).what

    def adapter(self, path):
        path.mkdir()
        (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
        names = [f"base_model.model.layers.0.q.lora_{which}.weight" for which in "AB"]
        save_file({name: torch.ones(2, 2) for name in names}, path / "adapter_model.safetensors")

    def test_a_saved_model_of_tensorflow(self, here):
        (here / "tf").mkdir()
        (here / "tf" / "saved_model.pb").write_bytes(field(1, 1) + field(2, b"graph"))
        for spec in ("./tf", "tf/saved_model.pb"):
            assert "TensorFlow SavedModel" in refused(spec).what

    def test_deepspeed(self, here):
        (here / "ds").mkdir()
        (here / "ds" / "latest").write_text("global_step3")
        assert "zero_to_fp32.py" in refused("m.py:build", weights="./ds").hint
        state = {
            name: torch.ones(0) for name in nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).state_dict()
        }
        torch.save({"module": state, "ds_version": "0.14"}, "states.pt")
        assert "zero_to_fp32.py" in refused("m.py:build", weights="states.pt").hint

    def test_fsdp_flat_parameters(self, here):
        torch.save({"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}}, "c.pt")
        assert "full_state_dict" in refused("m.py:build", weights="c.pt").hint

    def test_a_lightning_checkpoint_is_no_model(self, here):
        model = nn.Linear(2, 3)
        torch.save({"pytorch-lightning_version": "2", "state_dict": {"net.weight": model.weight}}, "c.ckpt")
        error = refused("c.ckpt")
        assert "is a Lightning checkpoint, a state_dict" in error.what
        assert error.hint.endswith("--weights c.ckpt")

    @pytest.mark.parametrize("form", ["bin", "safetensors"])
    def test_shards_with_an_index(self, form, here):
        state = load_problem(ProblemRequest("m.py:build", seed=5)).model.state_dict()
        names = list(state)
        write_index(here / "d", {f"model-1.{form}": names[:3], f"model-2.{form}": names[3:]}, state, form)
        for text in ("./d", next(Path("d").glob("*.index.json"))):
            problem = load_problem(ProblemRequest("m.py:build", weights=str(text), device="cpu"))
            assert all(torch.equal(value, state[name]) for name, value in problem.model.state_dict().items())

    def test_shards_that_run_code_or_lead_around(self, here):
        state = nn.Linear(2, 3).state_dict()
        write_index(here / "d", {"model-1.bin": list(state)}, state, "bin")
        torch.save(state | {"weight": Marker()}, here / "d" / "model-1.bin")
        assert isinstance(refused("m.py:build", weights="./d"), UntrustedFileError)
        assert not (here / "ran").exists()
        (here / "d" / "model-1.bin").unlink()
        shutil.copy(here / "d" / "pytorch_model.bin.index.json", here / "d" / "model-1.bin")
        assert "JSON" in refused("m.py:build", weights="./d").what
        for broken in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
            (here / "d" / "pytorch_model.bin.index.json").write_text(broken)
            assert refused("m.py:build", weights="./d").exit_code == 3

    @pytest.mark.filterwarnings("ignore")
    def test_a_distributed_checkpoint(self, here, monkeypatch):
        import torch.distributed.checkpoint as dcp

        state = load_problem(ProblemRequest("m.py:build", seed=5)).model.state_dict()
        dcp.save({"model": state, "epoch": 3}, checkpoint_id=here / "step", no_dist=True)
        error = refused("m.py:build", weights="./step")
        assert isinstance(error, UntrustedFileError)
        module, *arguments = re.match(r"python -m (\S+ dcp_to_torch \S+ \S+), if", error.hint)[1].split()
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        runpy.run_module(module, run_name="__main__")
        problem = load_problem(ProblemRequest("m.py:build", weights="step.pt", device="cpu"))
        assert torch.equal(problem.model[0].weight, state["0.weight"])
        piece = next((here / "step").glob("*.distcp"))
        assert refused("m.py:build", weights=str(piece)).hint == f"--weights {here / 'step'}"


def write_index(folder, parts, state, form):
    folder.mkdir()
    for file, names in parts.items():
        part = {name: state[name] for name in names}
        save_file(part, folder / file) if form == "safetensors" else torch.save(part, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, names in parts.items() for name in names}}
    name = "model.safetensors" if form == "safetensors" else "pytorch_model.bin"
    (folder / f"{name}.index.json").write_text(json.dumps(index))


class TestOutputs:
    @pytest.mark.parametrize(
        ("form", "said"),
        [
            ("tuple", "the first of 2 tensors, of shape (6, 3)"),
            ("named", ".logits, one of 2 tensors, of shape (6, 3)"),
            ("mapping", ".logits, one of 2 tensors, of shape (6, 3)"),
            ("alone", None),
            ("tensor", None),
        ],
    )
    def test_which_one_a_named_loss_takes(self, form, said, here):
        problem = load_problem(ProblemRequest(f"m.py:two(form='{form}')", loss="ce", device="cpu"))
        notes = [note for note in problem.notes if note.startswith("output:")]
        assert notes == (
            [f"output: the loss takes {said}; --loss FILE.py:f of (output, target) takes all"] if said else []
        )

    def test_a_loss_of_ones_own_takes_all(self, here):
        problem = load_problem(ProblemRequest("m.py:own(form='tuple')", device="cpu"))
        assert not any(note.startswith("output:") for note in problem.notes)

    def test_it_is_said_on_the_command_line(self, here, capfd):
        assert main.run(["diag-share", "m.py:two(form='tuple')", "--loss", "ce", "--format", "markdown"]) == 0
        assert "the loss takes the first of 2 tensors" in " ".join(capfd.readouterr().out.split())


def test_lengths_of_a_message_may_lie(tmp_path):
    """A varint of ten bytes and a length beyond the file."""
    for data in (b"\x08" + b"\xff" * 20, b"\x08\x0a\x3a\xff\xff\xff\xff\x0f", b"\x08" * 3000, struct.pack("<Q", 2**63)):
        (tmp_path / "m").write_bytes(data)
        assert foreign._protobuf(tmp_path / "m") is None
