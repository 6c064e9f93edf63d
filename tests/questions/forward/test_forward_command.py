import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hessdiag.nets.mlp import MLP


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_default_inits_and_their_order(hessdiag, own_folder):
    outcome = hessdiag("forward", "--depth", 3, "--width", 4, "--seeds", 30, "--json")
    doc = json.loads(outcome.out)
    assert outcome.code == 0
    assert [entry["init"] for entry in doc["result"]["inits"]] == ["lecun", "xavier_normal", "he_normal"]
    assert doc["result"]["inits"][0]["seeds"] == 30


def test_a_model_is_initialized_anew(hessdiag, own_folder):
    outcome = hessdiag("forward", "builtin:mlp(depth=2, width=3)", "--init", "he-normal", "--seeds", 5, "--json")
    doc = json.loads(outcome.out)
    assert (outcome.code, doc["problem"]["synthetic"]) == (0, True)
    (entry,) = doc["result"]["inits"]
    assert [layer["name"] for layer in entry["layers"]] == ["0", "2"]
    assert entry["layers"][0]["theory_median"] is None
    assert doc["theory"] is None


def test_weights_are_saved_with_the_gain(hessdiag, own_folder):
    common = ("--init", "he_normal", "--solve", "median", "--save", "w.safetensors", "--seeds", 60)
    assert hessdiag("forward", "--depth", 3, "--width", 5, *common).code == 0
    MLP(depth=3, width=5).load_state_dict(load_file("w.safetensors"))
    assert hessdiag("forward", "--depth", 3, "--width", 5, *common).code == 2  # it exists
    assert hessdiag("forward", "builtin:mlp(depth=2, width=4)", *common, "--force").code == 0
    MLP(depth=2, width=4).load_state_dict(load_file("w.safetensors"))


TRAIN = """
import torch
from torch import nn

def build(width=12):
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 5)).double()
"""


@pytest.fixture
def own_mlp(own_folder):
    """A user's tanh network in train.py, and its data: the inputs."""
    (own_folder / "train.py").write_text(TRAIN)
    x = np.random.default_rng(0).standard_normal((16, 8))
    np.savez(own_folder / "batch.npz", x=x, y=np.zeros((16, 5)))
    return torch.from_numpy(x)


def plain_ratios(x, gains, count):
    """What these gains do to other networks, by plain torch: rms of each layer's output over that of the input."""
    torch.manual_seed(123)
    found = np.empty((count, 3))
    for network in range(count):
        h, layers = x, [nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 5)]
        for index, (layer, gain) in enumerate(zip(layers, gains, strict=True)):
            weight = gain * nn.init.xavier_normal_(layer.weight.data.double())
            h = (torch.tanh(h) if index else h) @ weight.T
            found[network, index] = float(h.square().mean() / x.square().mean()) ** 0.5
    return found


def misses(ratios, layer, solved):
    """Standard errors between a median and 1; that of a sample median is 1.2533 times that of its mean."""
    logs = np.log(ratios[:, layer])
    error = 1.2533 * logs.std() / math.sqrt(len(logs))
    return np.median(logs) / math.hypot(error, solved)


def test_a_tanh_network_of_one_s_own_keeps_its_signal(hessdiag, own_mlp):
    command = ("forward", "train.py:build", "--data", "batch.npz", "--init", "xavier_normal", "--solve", "median")
    outcome = hessdiag(*command, "--json", "--save", "w.safetensors")
    assert outcome.code == 0
    (entry,) = json.loads(outcome.out)["result"]["inits"]
    found = entry["solution"]
    assert (entry["seeds"], found["method"], found["layers"]) == (200, "bisection", None)
    assert abs(found["z"]) < 4
    solved = entry["layers"][-1]["log_median_stderr"]
    ratios = plain_ratios(own_mlp, [found["gain"]] * 3, 400)
    assert abs(misses(ratios, 2, solved)) < 4
    assert abs(misses(plain_ratios(own_mlp, [1.0] * 3, 400), 2, solved)) > 10  # without the gain it is lost
    weight = load_file("w.safetensors")["2.weight"]
    assert float(weight.std()) == pytest.approx(found["gain"] / math.sqrt(12), rel=4 / math.sqrt(2 * 144))


def test_each_layer_of_a_tanh_network_keeps_its_signal(hessdiag, own_mlp):
    command = ("forward", "train.py:build", "--data", "batch.npz", "--init", "xavier_normal", "--solve", "median")
    outcome = hessdiag(*command, "--per-layer", "--json")
    assert outcome.code == 0
    (entry,) = json.loads(outcome.out)["result"]["inits"]
    found = entry["solution"]["layers"]
    assert [layer["name"] for layer in found] == ["0", "2", "4"]
    assert max(abs(layer["z"]) for layer in found) == abs(entry["solution"]["z"]) < 4
    ratios = plain_ratios(own_mlp, [layer["gain"] for layer in found], 400)
    for index, layer in enumerate(entry["layers"]):
        assert abs(misses(ratios, index, layer["log_median_stderr"])) < 4
    text = hessdiag(*command, "--per-layer", "--seeds", 40).out
    assert "xavier_normal: gain of each layer" in text
    assert "a typical network keeps" in " ".join(text.split())


def test_a_configured_model_is_taken_unless_networks_are_made_up(hessdiag, own_folder):
    (own_folder / "hessdiag.toml").write_text('[problem]\nmodel = "builtin:mlp(depth=2, width=3)"\n')
    taken = json.loads(hessdiag("forward", "--seeds", 3, "--json", "--config", "hessdiag.toml").out)
    made_up = json.loads(hessdiag("forward", "--seeds", 3, "--depth", 4, "--json", "--config", "hessdiag.toml").out)
    assert taken["result"]["inits"][0]["width"] is None
    assert (made_up["result"]["inits"][0]["width"], made_up["result"]["inits"][0]["depth"]) == (32, 4)


@pytest.mark.parametrize(
    "args",
    [
        ("--data", "x.npz"),
        ("--dtype", "float32"),
        ("builtin:lenet", "--depth", "3"),
        ("--save", "w.safetensors"),
        ("--init", "lecun", "--solve", "rms", "--save", "w.npz"),
        ("--solve", "mean"),
        ("--per-layer",),
    ],
)
def test_what_does_not_go_together_is_refused(hessdiag, own_folder, args):
    outcome = hessdiag("forward", *args)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
