"""`hessdiag escape` from the command line: what it races, its gate, and what it refuses."""

import json

import escape_by_hand as by_hand
import pytest

from hessdiag.questions.escape.command import _checked

TASK = "builtin:deep_mlp(depth=6, width=6, samples=32)"
QUICK = ("--seeds", 1, "--budget", 60, "--no-progress")


def test_named_optimizers_race_from_the_weights_of_each_seed(hessdiag):
    asked = ("--init", "lecun", "--optimizer", "sgd(lr=0.1)", "--optimizer", "rmsprop(lr=1e-2)", "--seeds", 2)
    outcome = hessdiag("escape", TASK, *QUICK, *asked, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)["result"]
    assert {(run["optimizer"], run["seed"]) for run in result["runs"]} == {
        (name, seed) for name in ("sgd(lr=0.1)", "rmsprop(lr=1e-2)") for seed in (0, 1)
    }
    assert result["budget"] == 60
    assert result["named"] is True
    assert len({plateau["loss"] for plateau in result["plateaus"]}) == 2, "weights are drawn anew"
    assert result["landscape"] is None


def test_a_builtin_is_another_network_for_each_seed(hessdiag):
    outcome = hessdiag("escape", TASK, *QUICK, "--lr", 0.1, "--seeds", 2, "--seed", 5, "--json")
    result = json.loads(outcome.out)["result"]
    assert [plateau["seed"] for plateau in result["plateaus"]] == [5, 6]
    assert len({plateau["loss"] for plateau in result["plateaus"]}) == 2
    assert {run["optimizer"] for run in result["runs"]} == {"sgd"}, "a learning rate alone is of gradient descent"
    assert {run["settings"]["lr"] for run in result["runs"]} == {0.1}


@pytest.mark.parametrize(("most", "code"), [(59, 0), (1, 1)])
def test_the_gate(hessdiag, most, code):
    asked = ("--init", "he_uniform", "--optimizer", "adam(lr=1e-2)", "--check", most)
    outcome = hessdiag("escape", TASK, "--seeds", 1, "--no-progress", *asked)
    assert outcome.code == code, outcome.out + outcome.err
    assert (f"gate: adam(lr=1e-2) is out in 0 of 1 run; --check allows {most}" in outcome.err) is (code == 1)
    assert "Which optimizer leaves this plateau" in outcome.out


def test_the_gate_counts_the_slowest_run(hessdiag):
    """Every run has to be out in time, and the line names the latest."""
    raced = by_hand.result()
    assert _checked(raced, 1) == 1
    only = by_hand.result(runs=tuple(run for run in raced.runs if run.optimizer == "tr-rmsprop"))
    assert (_checked(only, 24), _checked(only, 23)) == (0, 1)
    assert _checked(by_hand.result(runs=()), 24) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--optimizer", "sgd", "--optimizer", "adam", "--lr", "0.1"], "--optimizer 'sgd(lr=0.1)'"),
        (["--optimizer", "sgd,adam", "--lr", "0.1"], "2 are named"),
        (["--check", "10"], "--check needs the optimizer that it is about"),
        (["--optimizer", "sgd", "--check", "10", "--budget", "5"], "cannot be seen in a --budget of 5"),
        (["--optimizer", "sgdd"], "sgdd"),
        (["--lr", "-1"], "-1"),
        (["--threshold", "1.5"], "1.5"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(hessdiag, args, said):
    outcome = hessdiag("escape", TASK, "--no-progress", *args)
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.parametrize("option", ["--data", "--loss", "--layers", "--batches"])
def test_without_a_model_it_has_its_own_data(hessdiag, option):
    outcome = hessdiag("escape", option, "1" if option == "--batches" else "mse")
    assert outcome.code == 2
    assert f"{option} needs a MODEL" in outcome.err


def test_without_a_model_the_papers_network_is_raced(hessdiag, monkeypatch):
    from hessdiag.questions.escape import measure

    asked = {}

    def race(build, **keywords):
        asked.update(keywords, problems=[build(seed) for seed in (7, 8)])
        return by_hand.result()

    monkeypatch.setattr(measure, "escape_of", race)
    outcome = hessdiag("escape", "--seed", 7, "--no-progress")
    assert outcome.code == 0, outcome.err
    first, second = asked["problems"]
    assert first.n_parameters == second.n_parameters == 16 * 32 + 127 * 32**2 + 32
    assert first.parameters[0][0, 0] != second.parameters[0][0, 0]
    assert (asked["seed"], asked["seeds"], asked["optimizers"], asked["budget"]) == (7, 3, None, None)


def test_the_landscape_comes_when_asked_for(hessdiag):
    outcome = hessdiag("escape", TASK, *QUICK, "--lr", 0.1, "--landscape", "--json")
    found = json.loads(outcome.out)["result"]["landscape"]
    assert len(found["loss"]) == len(found["along_curvature"])
    middle = len(found["loss"]) // 2
    result = json.loads(outcome.out)["result"]
    assert found["loss"][middle][middle] == pytest.approx(result["plateaus"][0]["loss"], rel=1e-12)


def test_an_interrupt_keeps_the_runs_that_were_made(hessdiag, monkeypatch):
    """As Ctrl-C does while the second optimizer runs: the document is whole, and the exit code says what happened."""
    from hessdiag.questions.escape import race

    on, heard = race.Race.on, []

    def interrupted(self, start, number):
        if number == 1:
            heard.append(number)
            raise KeyboardInterrupt
        return on(self, start, number)

    monkeypatch.setattr(race.Race, "on", interrupted)
    outcome = hessdiag("escape", TASK, *QUICK, "--seeds", 2, "--optimizer", "sgd(lr=0.1)", "--json")
    doc = json.loads(outcome.out)
    assert heard == [1]
    assert (outcome.code, doc["status"]) == (130, "interrupted")
    assert [run["seed"] for run in doc["result"]["runs"]] == [0]
    assert any(finding["says"].startswith("Interrupted: 1 run") for finding in doc["verdict"])


def test_the_cost_is_said_before_it_is_paid(hessdiag):
    named = ("--optimizer", "sgd(lr=0.1)", "--optimizer", "rmsprop(lr=1e-2)")
    said = hessdiag("escape", TASK, "--seeds", 1, "--budget", 60, *named).err.splitlines()
    cost = next(index for index, line in enumerate(said) if "cost: 2 runs of up to 60 backpropagations" in line)
    assert "stopped after" in said[cost]
    assert said[cost + 1].strip() == "sgd(lr=0.1), run 1"
