import json
from shlex import split

import pytest

SMALL = "builtin:mlp(width=4,depth=2)"


def test_the_answer_is_one_document(hessdiag):
    outcome = hessdiag("bounds", SMALL, "--json")
    assert outcome.code == 0, outcome.err
    doc = json.loads(outcome.out)
    assert (doc["command"], doc["status"], doc["problem"]["parameters"]) == (
        "bounds",
        "ok",
        doc["result"]["parameters"],
    )
    assert doc["verdict"]
    assert "parameters" in outcome.err


def test_saved_results_are_rendered_again(hessdiag):
    first = hessdiag("bounds", SMALL, "-o", "r.json")
    assert hessdiag("report", "r.json").out == first.out
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert hessdiag("bounds", SMALL, "--baseline", "r.json").code == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("bounds a.pt b.pt", 2),
        ("bounds 'builtin:mlp(width=4,depth=2)' --fail-if 'perron.1 < 0'", 0),
    ],
)
def test_exit_codes(hessdiag, args, code):
    outcome = hessdiag(*split(args))
    assert outcome.code == code, outcome.err


def test_one_model_at_a_time_says_how(hessdiag):
    assert "hessdiag bounds once for each" in hessdiag("bounds", "a.pt", "b.pt").err
