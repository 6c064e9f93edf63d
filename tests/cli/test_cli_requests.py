import json
from shlex import split

import pytest

from tests.fake_share import fake_share

MODEL = "builtin:lenet"


def test_all_options_reach_the_loader(hessdiag, fake):
    outcome = hessdiag(
        *split("diag-share train.py:f --weights w.pt#ema --data b.npz --loss ce --batches 3 --batch-size 8 --rows 12"),
        *split("--device cpu --dtype float64 --seed 7 --layers conv* --train-mode --trust-code"),
    )
    assert outcome.code == 0
    request = fake.requests[0]
    expected = {
        "model": "train.py:f",
        "weights": "w.pt#ema",
        "data": "b.npz",
        "loss": "ce",
        "objective": None,
        "batches": 3,
        "batch_size": 8,
        "device": "cpu",
        "dtype": "float64",
        "seed": 7,
        "layers": "conv*",
        "train_mode": True,
        "trust_code": True,
    }
    assert {name: getattr(request, name) for name in expected} == expected
    assert (fake.calls[0]["rows"], fake.calls[0]["seed"]) == (12, 7)


def test_defaults_are_the_loaders(hessdiag, fake):
    from hessdiag.problem.load import ProblemRequest

    hessdiag("diag-share", MODEL)
    assert fake.requests == [ProblemRequest(model=MODEL)]
    assert fake.calls[0]["rows"] is None


def test_all_is_a_word(hessdiag, fake):
    from hessdiag.problem.batches.data import ALL

    hessdiag("diag-share", MODEL, "--rows", "all", "--batches", "all")
    assert (fake.calls[0]["rows"], fake.requests[0].batches) == ("all", ALL)


@pytest.mark.parametrize(
    ("args", "labels"),
    [
        (["runs/a.pt", "runs/b.pt"], ["a.pt", "b.pt"]),
        (["a/m.pt", "b/m.pt"], ["a/m.pt", "b/m.pt"]),
        (["t.py:f", "--weights", "a.pt", "--weights", "b.pt"], ["a.pt", "b.pt"]),
        (["t.py:f", "t.py:g"], ["t.py:f", "t.py:g"]),
        (["t.py:f(n=1, d=4)", "t.py:f(n=2, d=4)"], ["n=1", "n=2"]),
        (["builtin:mlp(depth=2)", "builtin:mlp(depth=3, width=8)"], ["depth=2", "depth=3, width=8"]),
        (["t.py:f(n=1)", "t.py:g(n=2)"], ["t.py:f(n=1)", "t.py:g(n=2)"]),
        (["t.py:f", "t.py:f(n=2)"], ["t.py:f", "t.py:f(n=2)"]),
        (["t.py:f", "--weights", "one", "--weights", "other"], ["one", "other"]),
        (["t.py:f", "--weights", "a.pt"], None),
        (["t.py:f"], None),
    ],
)
def test_trajectories(hessdiag, fake, args, labels):
    trajectory = json.loads(hessdiag("diag-share", *args, "--json").out)["result"]["trajectory"]
    assert (trajectory and [point["label"] for point in trajectory]) == labels


def test_models_and_weights_do_not_multiply(hessdiag, fake):
    outcome = hessdiag("diag-share", "t.py:f", "t.py:g", "--weights", "a.pt", "--weights", "b.pt")
    assert (outcome.code, fake.requests) == (2, [])


def test_an_interrupted_trajectory_keeps_what_it_has(hessdiag, fake):
    fake.result = fake_share("interrupted")
    outcome = hessdiag("diag-share", "a.pt", "b.pt", "--json")
    assert outcome.code == 130
    assert len(fake.requests) == 1
    assert json.loads(outcome.out)["status"] == "interrupted"


def test_vanishing_passes_its_options_on(hessdiag, monkeypatch):
    from hessdiag.questions import documents
    from hessdiag.questions.vanishing import measure as measuring
    from tests.documents import document

    calls = []

    def measure(**options):
        calls.append(options)
        return documents.read(document("vanishing-shallow"))

    monkeypatch.setattr(measuring, "vanishing", measure)
    outcome = hessdiag(
        *split("vanishing --depth 8 --width same --init he-normal --activation leaky_relu --seeds 5"),
        *split("--hessian-seeds 3 --batch 2 --seed 9 --device cpu --distribution normal --json"),
    )
    assert outcome.code == 0
    del calls[0]["progress"]
    assert calls[0] == {
        "depth": 8,
        "width": "same",
        "init": "he_normal",
        "activation": "leaky_relu",
        "seeds": 5,
        "hessian_seeds": 3,
        "batch": 2,
        "seed": 9,
        "device": "cpu",
        "distribution": "normal",
        "resume": None,
    }
    assert json.loads(outcome.out)["result"]["init"] == "lecun"
