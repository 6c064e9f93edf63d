"""Nothing in a file runs unless it is trusted; data and stock layers load freely."""

import argparse
import io
import os
import pickle
import pickletools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from fuzz.crafted_pickles import zipped as torch_zip
from torch import nn

from hessdiag.errors import LoadError, UntrustedFileError
from hessdiag.problem.files import trust
from hessdiag.problem.files.checkpoint import read
from hessdiag.problem.load import ProblemRequest, load_problem

STOCK = {
    "sequential": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
    "conv": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1)
    ),
    "norms": lambda: nn.ModuleDict(
        {"a": nn.LayerNorm(4), "b": nn.GroupNorm(2, 4), "c": nn.InstanceNorm1d(3, affine=True)}
    ),
    "embedding": lambda: nn.Sequential(nn.Embedding(7, 3), nn.Softmax(-1), nn.LogSoftmax(-1)),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True),
    "gru": lambda: nn.GRU(3, 4, bidirectional=True),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "encoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
    "encoder_gelu": lambda: nn.TransformerEncoderLayer(8, 2, 16, activation=F.gelu),
    "encoder_silu": lambda: nn.TransformerEncoderLayer(8, 2, 16, activation=F.silu),
    "transformer": lambda: nn.Transformer(8, 2, 1, 1, 16),
    "lists": lambda: nn.ModuleList([nn.ReLU(), nn.ParameterList([torch.ones(2)]), nn.Identity(), nn.GELU()]),
    "loss": lambda: nn.CrossEntropyLoss(weight=torch.ones(3)),
}


@pytest.mark.parametrize("name", STOCK)
def test_stock_layers_load_without_a_flag(name, tmp_path):
    module = STOCK[name]()
    torch.save(module, tmp_path / "model.pt")
    loaded = read(tmp_path / "model.pt")
    assert repr(loaded) == repr(module)
    for ours, theirs in zip(module.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_stock_layer_class_is_found_by_its_name():
    classes = [item for item in vars(nn).values() if isinstance(item, type) and issubclass(item, nn.Module)]
    own = [item for item in classes if item.__module__.startswith("torch.nn.modules.")]
    assert len(own) > 100
    assert all(trust.stock(f"{item.__module__}.{item.__name__}") is item for item in own)


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.functional.torch.os.system",
        "torch.nn.modules.module.__builtins__",
        "torch.nn.modules.module.__builtins__.eval",
        "torch.nn.functional.handle_torch_function",
        "torch.nn.functional.importlib",
        "torch.nn.modules.module.register_module_forward_hook",
        "torch.nn.modules.module.torch",
        "torch.nn.modules.container.operator",
        "torch.nn.modules.linear.Module",  # lives elsewhere
        "torch._C._nn.__loader__",
        "torch.hub.load",
        "posix.system",
        "builtins.eval",
        "nowhere",
        "",
    ],
)
def test_names_that_lead_elsewhere_are_not_stock(name):
    assert trust.stock(name) is None


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def pickled(payload, protocol, path):
    path.write_bytes(pickle.dumps(payload, protocol=protocol))


FORMS = {
    "plain pickle 2": lambda payload, path: pickled(payload, 2, path),
    "plain pickle 4": lambda payload, path: pickled(payload, 4, path),
    "torch zip": lambda payload, path: torch.save(payload, path),
    "torch zip, protocol 4": lambda payload, path: path.write_bytes(torch_zip(pickle.dumps(payload, protocol=4))),
    "torch legacy": lambda payload, path: torch.save(payload, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pickle_does_not_run(form, nested, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "model.pt"
    payload = Marker(marker)
    if nested:
        payload = {
            "state_dict": {"w": torch.ones(2), "x": [payload]},
            "model": nn.Sequential(nn.Linear(2, 2)),
        }
    FORMS[form](payload, path)
    with pytest.raises(UntrustedFileError) as caught:
        read(path)
    assert not marker.exists()
    assert caught.value.exit_code == 3
    assert "posix.system" in str(caught.value) or "nt.system" in str(caught.value)
    assert "--trust-code" in str(caught.value)
    assert "--weights" in str(caught.value)


def test_the_marker_would_have_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "model.pt"
    FORMS["torch zip"]({"a": Marker(marker)}, path)
    read(path, trust_code=True)
    assert marker.exists()


def program(module, name, argument):
    """A protocol-2 pickle that calls module.name(argument)."""
    stream = io.BytesIO()
    stream.write(b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n")
    stream.write(b"X" + len(argument).to_bytes(4, "little") + argument.encode() + b"\x85R.")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.nn.functional", "torch.os.system"),
        ("torch.nn.functional.torch.os", "system"),
        ("torch.nn.modules.module", "__builtins__.eval"),
        ("torch.nn.modules.module.__builtins__", "eval"),
        ("torch.nn.modules.module", "__builtins__"),
        ("torch.nn.modules", "module.torch.os.system"),
        ("torch.nn.functional", "importlib.import_module"),
        ("torch.hub", "load"),
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.nn.modules.module", "register_module_forward_hook"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_attribute_paths_do_not_lead_out(module, name, zipped, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "model.pt"
    argument = f"touch {marker}" if name.endswith("system") else f"open({str(marker)!r}, 'w')"
    code = program(module, name, argument)
    assert pickletools.optimize(code)  # well formed
    path.write_bytes(torch_zip(code) if zipped else code)
    with pytest.raises(UntrustedFileError) as caught:
        read(path)
    assert f"{module}.{name}" in str(caught.value)
    assert not marker.exists()


class OwnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)


def test_a_module_of_ones_own_class_needs_trust(tmp_path):
    torch.save(OwnNet(), tmp_path / "model.pt")
    with pytest.raises(UntrustedFileError, match=r"OwnNet"):
        read(tmp_path / "model.pt")
    assert isinstance(read(tmp_path / "model.pt", trust_code=True), OwnNet)


def test_trusted_code_that_cannot_be_imported(tmp_path):
    code = program("no_such_package_here", "Net", "x")
    (tmp_path / "model.pt").write_bytes(torch_zip(code))
    with pytest.raises(LoadError, match="no_such_package_here"):
        read(tmp_path / "model.pt", trust_code=True)


def test_trusted_plain_pickles_load(tmp_path):
    pickled({"w": OwnNet()}, 4, tmp_path / "m.pkl")
    assert isinstance(read(tmp_path / "m.pkl", trust_code=True)["w"], OwnNet)


def test_the_environment_cannot_grant_trust(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    torch.save(Marker(marker), tmp_path / "model.pt")
    with pytest.raises(UntrustedFileError):
        read(tmp_path / "model.pt")
    assert not marker.exists()


def test_namespaces_are_data(tmp_path):
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": {"w": torch.ones(2)}}, tmp_path / "c.pt")
    assert read(tmp_path / "c.pt")["args"].lr == 0.1


def test_legacy_state_dicts_are_data(tmp_path):
    state = nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read(tmp_path / "c.pt")["weight"], state["weight"])


def test_allowed_globals_do_not_stay(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save(STOCK["encoder"](), tmp_path / "m.pt")
    read(tmp_path / "m.pt")
    assert set(torch.serialization.get_safe_globals()) == before


def break_module(module, how):
    """A pickled module gets whatever attributes the file says: no constructor runs."""
    if how == "empty":
        vars(module).clear()
    elif how == "no mapping":
        vars(module)["_parameters"] = "x"
    elif how == "number":
        module._parameters["weight"] = 3.0
    elif how == "child":
        module._modules["a"] = 3
    elif how == "itself":
        module._modules["me"] = module
    elif how == "method":
        vars(module)["state_dict"] = F.relu
    return module


@pytest.mark.parametrize("how", ["empty", "no mapping", "number", "child", "itself", "method"])
def test_damaged_modules_end_in_one_line(how, folder):
    torch.save(break_module(nn.Linear(4, 2), how), "m.pt")
    with pytest.raises(LoadError, match="in the file is damaged") as caught:
        load_problem(ProblemRequest("./m.pt", device="cpu"))
    assert "\n" not in caught.value.what
