import json
from shlex import split

import pytest

SMALL = "builtin:mlp(width=4,depth=2)"


def test_spectrum_passes_its_options_on(hessdiag, fake, monkeypatch):
    from hessdiag.questions.spectrum import measure as measuring

    calls = []
    monkeypatch.setattr(measuring, "spectrum", lambda problem, **options: calls.append(options) or _stop())
    hessdiag(*split(f"spectrum '{SMALL}' --probes 7 --steps 33 --operator ggn --seed 5"))
    del calls[0]["progress"]
    assert calls == [{"probes": 7, "steps": 33, "operator": "ggn", "seed": 5, "resume": None, "metric": None}]
    hessdiag("spectrum", SMALL)
    assert (calls[1]["probes"], calls[1]["steps"], calls[1]["operator"]) == (10, 80, "hessian")


def _stop():
    raise KeyboardInterrupt


def test_the_answer_is_one_document(hessdiag):
    outcome = hessdiag("spectrum", SMALL, "--json")
    assert outcome.code == 0, outcome.err
    doc = json.loads(outcome.out)
    assert (doc["command"], doc["status"], doc["problem"]["parameters"]) == (
        "spectrum",
        "ok",
        doc["result"]["parameters"],
    )
    assert doc["verdict"]
    assert "parameters" in outcome.err


@pytest.mark.parametrize("operator", ["ggn", "fisher"])
def test_other_matrices(hessdiag, operator):
    doc = json.loads(hessdiag("spectrum", SMALL, "--operator", operator, "--json").out)
    assert doc["result"]["operator"] == operator
    assert doc["result"]["lowest"] > -1e-12


def test_saved_results_are_rendered_again(hessdiag):
    first = hessdiag("spectrum", SMALL, "-o", "r.json")
    assert hessdiag("report", "r.json").out == first.out
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert hessdiag("spectrum", SMALL, "--baseline", "r.json").code == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("spectrum a.pt b.pt", 2),
        ("spectrum 'builtin:mlp(width=4,depth=2)' --probes 1", 2),
        ("spectrum 'builtin:mlp(width=4,depth=2)' --operator jacobian", 2),
        ("spectrum 'builtin:mlp(width=4,depth=2)' --fail-if 'trace > -1e9'", 1),
    ],
)
def test_exit_codes(hessdiag, args, code):
    outcome = hessdiag(*split(args))
    assert outcome.code == code, outcome.err
