"""Reports of small networks: the numbers of the single commands, within the budget, whatever fails."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hessdiag as package
from hessdiag import Problem, full_report
from hessdiag.curvature import dense
from hessdiag.errors import ComputeError, SpecError
from hessdiag.machine import cost
from hessdiag.questions import documents
from hessdiag.questions.common.runs.progress import silent
from hessdiag.questions.report import ask
from hessdiag.questions.report import measure as measuring
from hessdiag.questions.report.pace import Pace
from hessdiag.questions.report.result import Section
from hessdiag.questions.report.steps import STEPS, Step
from hessdiag.questions.report.verdict import _limited

SCRIPT = """
import torch
from torch import nn
def setup():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    return model, [(torch.randn(24, 5), torch.randint(3, (24,)))], "ce"
"""
APART = {"provenance", "seconds"}  # what no two runs have alike


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return Problem(model, data=[(torch.randn(16, 4).double(), torch.randint(2, (16,)))], loss="ce")


def differences(one, other, path=""):
    """Where two documents differ, times aside."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [
            found
            for key in sorted(keys)
            if key not in APART
            for found in differences(one.get(key, "none"), other.get(key, "none"), f"{path}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found
            for index, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f"{path}.{index}")
        ]
    return [] if one == other else [f"{path}: {one!r:.60} and {other!r:.60}"]


def asked(monkeypatch, *commands, **changed):
    """Let a report ask of these questions alone, with other functions in the place of some."""
    steps = [changed.get(one.command.replace("-", "_"), one) for one in STEPS if one.command in ("check", *commands)]
    monkeypatch.setattr(measuring, "STEPS", tuple(steps))


class Replaced(Step):
    """A step whose function is another."""

    def __init__(self, command, function):
        super().__init__(command)
        object.__setattr__(self, "_own", function)

    def measure(self):
        return self._own


def replaced(command, function):
    return Replaced(command, function)


def as_alone(hessdiag, out):
    """The sections of a report, each compared with the command that it names."""
    assert out.code in (0, 4), out.err
    sections = json.loads(out.out)["result"]["sections"]
    for section in sections:
        alone = hessdiag(*section["argv"][1:], "--json", "--allow-inexact")
        assert alone.code == 0, alone.err
        assert differences(json.loads(alone.out), section["document"], section["command"]) == []
    return {one["command"]: one for one in sections}


def test_numbers_are_those_of_the_single_commands(hessdiag):
    sections = as_alone(
        hessdiag, hessdiag("report", "builtin:mlp(width=5, depth=3)", "--seed", "3", "--budget", "none", "--json")
    )
    assert len(sections) >= 10


def test_numbers_of_ones_own_network_and_optimizer_are_those_of_the_single_commands(hessdiag, tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(SCRIPT)
    asked(monkeypatch, "sharpness", "eigs", "trust-radius")
    args = ("train.py:setup", "--optimizer", "sgd", "--lr", "0.1", "--budget", "none", "--json")
    assert as_alone(hessdiag, hessdiag("report", *args)).keys() == {"check", "sharpness", "eigs", "trust-radius"}


def test_numbers_of_cheap_options_are_those_of_the_command_with_them(hessdiag, monkeypatch):
    asked(monkeypatch, "diag-share", "blocks", "trust-radius", "precondition", "eigs", "forward")
    out = hessdiag("report", "builtin:mlp(width=5, depth=3)", "--preset", "quick", "--budget", "none", "--json")
    assert "--rows" in as_alone(hessdiag, out)["diag-share"]["argv"]


def test_python_gives_the_numbers_of_the_functions():
    report = full_report(problem(), seed=2)
    eigs = next(one for one in report.sections if one.command == "eigs")
    alone = json.loads(package.eigs(problem(), seed=2).to_json())
    assert differences(alone, json.loads(json.dumps(eigs.document))) == []
    assert eigs.argv == ("hessdiag", "eigs", "MODEL", "--seed", "2")
    assert report.sections[0].command == "check"
    assert {one.command for one in report.left_out} >= {"vanishing", "transfer", "escape"}


def test_a_report_is_read_back(tmp_path):
    report = full_report(problem(), preset="quick")
    (tmp_path / "r.json").write_text(report.to_json(), "utf-8")
    again = package.load(tmp_path / "r.json")
    assert again.sections[1].document == json.loads(json.dumps(report.sections[1].document))
    assert again.key_numbers == report.key_numbers
    assert all(isinstance(documents.read(one.document), package.results.Result) for one in again.sections)


def test_a_budget_that_is_far_too_small_leaves_check_and_says_so():
    report = full_report(problem(), budget=1e-6)
    assert [one.command for one in report.sections] == ["check"]
    assert any("too small for more than check" in one.says for one in report.findings)
    left = {one.command: one for one in report.left_out}
    assert left["eigs"].seconds > 0
    assert left["eigs"].argv[:2] == ("hessdiag", "eigs")
    assert report.status == "ok"


def test_a_question_that_fails_does_not_lose_the_others(monkeypatch):
    def fails(problem, **options):
        raise ComputeError("there is no such matrix.")

    def breaks(problem, **options):
        raise ZeroDivisionError("by nothing")

    asked(monkeypatch, "eigs", "blocks", "bounds", eigs=replaced("eigs", fails), blocks=replaced("blocks", breaks))
    report = full_report(problem())
    assert [one.command for one in report.sections] == ["check", "bounds"]
    left = {one.command: one.why for one in report.left_out}
    assert left["eigs"] == "there is no such matrix."
    assert "ZeroDivisionError: by nothing" in left["blocks"]


def test_ctrl_c_keeps_what_is_done(monkeypatch):
    def stops(problem, **options):
        raise KeyboardInterrupt

    asked(monkeypatch, "eigs", "bounds", "blocks", blocks=replaced("blocks", stops))
    report = full_report(problem())
    assert report.status == "interrupted"
    assert [one.command for one in report.sections] == ["check", "eigs"]
    assert {one.command for one in report.left_out if one.why.startswith("interrupted")} == {"blocks", "bounds"}


def test_what_overruns_is_ended_as_by_ctrl_c_and_keeps_what_it_found(monkeypatch):
    """By a clock that goes on by one with every product."""
    monkeypatch.setattr(ask, "time", SimpleNamespace(perf_counter=count().__next__))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 40), nn.Tanh(), nn.Linear(40, 2)).double()
    large = Problem(model, data=[(torch.randn(16, 60).double(), torch.randint(2, (16,)))], loss="ce")
    asking = ask.Asking(large, ("MODEL",), None, None, 0, silent)
    answer = ask.asked_one(asking, Step("eigs"), {"lowest": 20, "highest": 20, "tol": 1e-9}, 60)
    assert answer.document["status"] == "interrupted"
    assert answer.document["result"]["largest"] > 0
    assert answer.document["result"]["largest"] <= 1.0001 * package.eigs(large, lowest=1, highest=1).largest
    assert not answer.interrupted


@pytest.mark.parametrize("asking", [{"preset": "brief"}, {"budget": "soon"}, {"optimizer": "adma"}])
def test_what_cannot_be_asked_is_refused(asking):
    with pytest.raises(SpecError):
        full_report(problem(), **asking)


def test_the_answer_comes_first_and_nothing_is_said_twice():
    report = full_report(problem())
    said = [one.says for one in report.findings]
    assert said[0].startswith("Nothing was found")
    assert "Adam is stable here up to a learning rate of" in said[0]
    assert len(said) == len(set(said))
    assert sum("negative curvature" in one.lower() for one in said) <= 1
    assert all(one.because.partition(":")[0] in {s.command for s in report.sections} for one in report.findings)


def test_a_network_that_will_not_train_is_answered_by_its_cause(monkeypatch):
    asked(monkeypatch, "sharpness")
    dead = problem()
    nn.init.zeros_(dead.model[2].weight)
    nn.init.zeros_(dead.model[0].weight)
    report = full_report(dead)
    assert report.findings[0].says.startswith("It will not train as it is: ")
    assert report.findings[0].remedy
    assert report.findings[0].because.startswith("check: ")


def test_work_that_questions_share_is_done_once(monkeypatch):
    formed, decomposed, exactly, eigh = [], [], dense._formed, torch.linalg.eigh

    def form(operator, *others):
        formed.append(operator.shape)
        return exactly(operator, *others)

    def decompose(matrix):
        decomposed.append(tuple(matrix.shape))
        return eigh(matrix)

    own = problem()
    monkeypatch.setattr(dense, "_formed", form)
    monkeypatch.setattr(torch.linalg, "eigh", decompose)
    asked(monkeypatch, "eigs", "spectrum", "bounds", "precondition")
    report = full_report(own)
    assert [one.document["status"] for one in report.sections] == ["ok"] * 5
    assert formed == [(37, 37)]
    assert decomposed.count((37, 37)) - _by_precondition(decompose, decomposed) == 1


def _by_precondition(decompose, decomposed):
    """How many of its own `precondition` makes of matrices of that size, beside the first."""
    before = decomposed.count((37, 37))
    package.precondition(problem())
    return decomposed.count((37, 37)) - before - 1


@pytest.mark.parametrize("train_mode", [False, True])
def test_limits_of_evaluation_mode_are_no_limits_of_training_with_batch_norm(train_mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double()
    data = [(torch.randn(16, 4).double(), torch.randint(2, (16,)))]
    answer = full_report(Problem(model, data=data, loss="ce", train_mode=train_mode), budget=None, preset="quick")
    assert ("learning rate" in answer.findings[0].says or "unstable" in answer.findings[0].says) is train_mode


def test_with_batch_norm_every_question_withholds_limits_for_one_reason():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)).double()
    normed = Problem(model, data=[(torch.randn(16, 4).double(), torch.randint(2, (16,)))], loss="ce")
    reason = "no limit of its learning rate follows"
    for found in (package.eigs(normed), package.eigs(normed, metric="adam"), package.sharpness(normed, lr=1e3)):
        assert sum(reason in one.says for one in found.findings) == 1
        assert not any("learning rate" in f"{one.says} {one.remedy}".replace(reason, "") for one in found.findings)
        assert all(one.level != "warn" for one in found.findings)
    training = Problem(model, data=normed.data, loss="ce", train_mode=True)
    assert any("learning rates below" in one.says for one in package.eigs(training).findings)


@pytest.mark.parametrize("train_mode", [False, True])
def test_limits_of_evaluation_mode_are_no_key_numbers(train_mode, monkeypatch):
    asked(monkeypatch, "eigs", "sharpness")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).double()
    data = [(torch.randn(16, 4).double(), torch.randint(2, (16,)))]
    report = full_report(Problem(model, data=data, loss="ce", train_mode=train_mode), budget="none")
    assert ("largest_step" in {one.metric for one in report.key_numbers}) is train_mode
    assert "largest" in {one.metric for one in report.key_numbers}


def test_time_that_is_left_is_spent_on_better_answers(monkeypatch):
    """The plan that was made is for 1 s; when it is through, the clock says that there are 1,000."""
    given = []

    def eigs(problem, **options):
        given.append({name: options[name] for name in ("lowest", "highest") if name in options})
        monkeypatch.setattr(measuring._Run, "remaining", property(lambda run: 1000.0))
        return package.eigs(problem, **options)

    asked(monkeypatch, "eigs")
    dearer = Replaced("eigs", eigs)
    rungs = ({"lowest": 1, "highest": 1}, {"lowest": 2, "highest": 3})
    object.__setattr__(dearer, "rungs", rungs)
    monkeypatch.setattr(measuring, "STEPS", (measuring.STEPS[0], dearer))
    monkeypatch.setattr(measuring, "step", lambda command: dearer)
    monkeypatch.setattr(measuring, "prices", lambda steps, *rest: dict.fromkeys(steps, (1.0, 500.0)))
    monkeypatch.setattr(measuring._Run, "remaining", property(lambda run: 2.0))
    report = full_report(problem(), budget=1e4)
    assert given == list(rungs)
    assert [one.command for one in report.sections] == ["check", "eigs"]
    assert report.sections[1].argv[3:] == ("--lowest", "2", "--highest", "3")
    assert report.sections[1].announced_seconds == 500.0


def test_a_better_answer_that_does_not_come_to_its_end_leaves_the_first(monkeypatch):
    def eigs(problem, **options):
        found = package.eigs(problem)
        return found if options["lowest"] == 1 else replace(found, status="interrupted", largest=-1.0)

    one = Replaced("eigs", eigs)
    object.__setattr__(one, "rungs", ({"lowest": 1}, {"lowest": 2}))
    monkeypatch.setattr(measuring, "step", lambda command: one)
    run = measuring._Run(ask.Asking(problem(), ("MODEL",), None, None, 0, silent), 1e4, quick=False)
    run.waiting = {"eigs": one}
    run._ask(measuring.Chosen("eigs", 0, 1.0), 1e4)
    with pytest.raises(KeyboardInterrupt):
        run._ask_again(measuring.Chosen("eigs", 1, 1.0))
    assert [section.document["result"]["largest"] > 0 for section in run.sections] == [True]


def test_a_check_of_the_point_that_takes_too_long_is_ended(monkeypatch):
    def endless(problem, first, seed, left):
        while True:
            cost.enter(1, 0.1)

    monkeypatch.setattr(measuring, "pace", endless)
    monkeypatch.setattr(measuring, "OVER", -1e3)
    monkeypatch.setattr(measuring, "first_pace", lambda problem, left: Pace(1.0, 1.0, 1.0, 1.0, 1.0))
    asked(monkeypatch, "eigs")
    report = full_report(problem(), budget=10.0)
    assert [one.command for one in report.sections] == ["check"]
    assert {one.command for one in report.left_out} >= {"eigs"}
    assert report.products >= 1


def test_what_the_optimizer_had_accumulated_is_that_of_the_single_commands(hessdiag, tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(SCRIPT)
    script = {}
    exec(SCRIPT, script)
    for name in ("Adam", "SGD"):
        model, data, _ = script["setup"]()
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
            optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / f"{name}.pt")
    asked(monkeypatch, "sharpness", "precondition")
    common = ("train.py:setup", "--weights", "Adam.pt#model", "--budget", "none", "--json")
    given = ("--optimizer", "adam", "--state", "Adam.pt#optimizer")
    sections = as_alone(hessdiag, hessdiag("report", *common, *given))
    assert sections["sharpness"]["document"]["result"]["optimizer"]["state"] == "checkpoint"
    assert sections["precondition"]["document"]["result"]["optimizer_state"] == "checkpoint"
    assert "--state" not in sections["check"]["argv"]
    plain = as_alone(hessdiag, hessdiag("report", *common, "--optimizer", "sgd", "--state", "SGD.pt#optimizer"))
    assert plain["precondition"]["document"]["result"]["optimizer_state"] == "gradients"  # SGD holds no squares
    missing = hessdiag("report", *common, "--optimizer", "adam", "--state", "none.pt")
    assert (missing.code, missing.err.splitlines()[0]) == (3, "error: none.pt does not exist.")


def test_a_race_off_a_plateau_is_that_of_its_command(hessdiag, monkeypatch):
    asked(monkeypatch, "escape")
    monkeypatch.setattr(measuring, "STEPS", tuple(replace(one, rungs=one.rungs[:1]) for one in measuring.STEPS))
    stuck = "builtin:mlp(depth=24, width=4, init='lecun')"
    assert as_alone(hessdiag, hessdiag("report", stuck, "--budget", "none", "--json")).keys() == {"check", "escape"}


def test_at_the_edge_of_stability_nothing_is_called_stable():
    result = {"ratio": 1.04, "largest_lr": 9.6e-4, "regime": "edge", "optimizer": {"name": "Adam(lr=0.001)"}}
    section = Section(command="sharpness", argv=(), seconds=1.0, document={"result": result})
    found = _limited("Nothing was found.", {"try": "", "level": "ok"}, section, None)
    assert found.says == "Nothing was found; Adam is at the edge of stability here."
