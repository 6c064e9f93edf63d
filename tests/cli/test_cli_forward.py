import json

import pytest
from safetensors.torch import load_file

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


def test_a_configured_model_is_taken_unless_networks_are_made_up(hessdiag, own_folder):
    (own_folder / "hessdiag.toml").write_text('[problem]\nmodel = "builtin:mlp(depth=2, width=3)"\n')
    taken = json.loads(hessdiag("forward", "--seeds", 3, "--json").out)
    made_up = json.loads(hessdiag("forward", "--seeds", 3, "--depth", 4, "--json").out)
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
    ],
)
def test_what_does_not_go_together_is_refused(hessdiag, own_folder, args):
    outcome = hessdiag("forward", *args)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
