"""What is said of readings, and shown of results that lack something."""

from dataclasses import replace

import pytest
import torch

from hessdiag import Problem, sharpness
from hessdiag.questions import documents
from hessdiag.questions.pages import render, view_of
from hessdiag.questions.sharpness.regime import decided, regime
from hessdiag.questions.sharpness.result import Noise, Reading
from hessdiag.questions.sharpness.verdict import findings
from hessdiag.questions.sharpness.view import view
from hessdiag.report.view import Dots, Table
from tests.documents import document


def result(name="sharpness"):
    return documents.read(document(name))


def of(found, **ratios):
    """A result whose readings have these ratios, and the errors behind them."""
    changed = []
    for one in found.readings:
        ratio, error = ratios.get(one.kind, (one.ratio, one.ratio_stderr))
        scale = one.threshold or 1.0
        value, stderr = (
            (one.value, one.stderr) if ratio is None else (ratio * scale, None if error is None else error * scale)
        )
        changed.append(replace(one, value=value, stderr=stderr, ratio=ratio, ratio_stderr=error))
    return decided(replace(found, readings=tuple(changed)))


def says(found):
    return " ".join(finding.says for finding in findings(found))


@pytest.mark.parametrize(
    ("ratio", "error", "bound", "state"),
    [
        (0.9, 0.01, None, "stable"),
        (0.9, 0.06, None, "edge"),
        (1.0, None, None, "edge"),
        (1.08, 0.05, None, "edge"),
        (1.08, 0.02, None, "unstable"),
        (-0.2, None, None, "stable"),
        (0.9, None, "lower", None),
        (1.02, None, "lower", None),
        (1.08, None, "lower", "unstable"),
    ],
)
def test_regimes(ratio, error, bound, state):
    assert regime(Reading(kind="lambda_max", value=1.0, ratio=ratio, ratio_stderr=error, bound=bound)) == state


def test_the_first_sentence_answers_the_question():
    found = result()
    stable = of(found, preconditioned=(0.5, 0.01))
    assert (
        findings(stable)[0].says
        == "Adam(lr=0.01, eps=1e-08) is stable here: the curvature that it sees is 50.0 % of what it can take."
    )
    assert "a learning rate of 0.02000 ± 0.00040 here" in findings(stable)[0].remedy
    assert "at the edge of stability" in findings(of(found, preconditioned=(1.01, 0.01)))[0].says
    beyond = findings(of(found, preconditioned=(2.5, 0.01)))[0]
    assert beyond.level == "warn"
    assert (
        "unstable here, as far as the gradients here tell: the curvature that it sees is 2.50 times what it can take"
        in beyond.says
    )
    moving = replace(found, optimizer=replace(found.optimizer, state="optimizer"))
    assert "as far as" not in findings(of(moving, preconditioned=(2.5, 0.01)))[0].says
    assert "no curvature that it sees is positive" in findings(of(found, preconditioned=(-0.5, 0.01)))[0].says


def test_of_muon_the_next_step_is_judged():
    found = result("sharpness-muon")
    assert found.decided_by == "directional"
    assert findings(found)[0].says.startswith("The next step of Muon")
    assert "leaves the loss about where it is" in findings(of(found, directional=(1.0, None)))[0].says
    beyond = findings(of(found, directional=(1.5, None)))[0]
    assert (beyond.level, "raises the loss" in beyond.says) == ("warn", True)
    assert "lr S / (2 |g|_*) is at least" in " ".join(finding.because for finding in findings(found))


def test_critical_sharpness_is_told_from_the_eigenvalue():
    """Of an optimizer on its way by what is left to the limits, of one that has not stepped by the values."""
    found = result("sharpness-edge")
    assert found.optimizer.settings["momentum"] == 0.9
    alike = of(found, critical=(0.5, 0.0), lambda_max=(0.5, 0.0))  # of other limits: the values differ by 1.9
    assert "Critical sharpness is not lambda_max here" in says(alike)
    moving = replace(alike, optimizer=replace(found.optimizer, state="checkpoint"))
    steep = of(moving, directional=(moving.reading("lambda_max").value / moving.reading("directional").threshold, None))
    for step in (replace(steep, overlap=0.02), replace(moving, overlap=0.6)):  # others may be as sharp as the top
        assert "agrees with lambda_max: the next step goes along the sharpest directions" in says(step)
    flat = of(moving, directional=(0.4 * steep.reading("directional").ratio, None))
    assert "agrees with lambda_max by chance" in says(replace(flat, overlap=0.02))
    apart = of(moving, critical=(0.01, 0.0))
    for overlap, goes in ((0.02, "hardly goes"), (0.6, "goes only in part")):
        said = says(replace(apart, overlap=overlap))
        assert f"Critical sharpness is not lambda_max here: the next step {goes} along the sharpest direction" in said


@pytest.mark.parametrize(
    ("critical", "directional", "said"),
    [
        ((0.25, 0.0), (0.2, None), "The next step lowers the loss: it could be up to 4.00 times as long."),
        ((2.0, 0.0), (1.5, None), "The next step raises the loss: it is back at its value after 50.0 % of it."),
        ((None, None), (0.2, None), "The next step lowers the loss, by the quadratic model."),
        ((None, None), (1.2, None), "The next step raises the loss, by the quadratic model."),
    ],
)
def test_the_next_step_is_told_by_losses_where_they_are_known(critical, directional, said):
    found = result()
    if critical[0] is None:
        found = replace(found, readings=tuple(one for one in found.readings if one.kind != "critical"))
    made = of(found, critical=critical, directional=directional)
    assert said in says(made)
    assert "the loss is no parabola" not in " ".join(finding.because for finding in findings(made))


def test_losses_that_contradict_the_quadratic_model_are_said():
    made = of(result(), critical=(2.0, 0.0), directional=(0.2, None))
    assert any("the loss is no parabola" in finding.because for finding in findings(made))


def test_a_loss_that_does_not_come_back_is_no_length_that_a_step_could_have():
    """Of a linear loss every step lowers it, and no direction is the sharpest one."""
    model = torch.nn.Linear(3, 1, bias=False).double()
    linear = Problem(model, data=[None], objective=lambda model, batch: model.weight.sum())
    said = says(sharpness(linear, lr=0.1))
    assert "The next step lowers the loss, and so does a longer one, as far as was looked: " in said
    assert "sharpest" not in said


def test_a_state_in_another_order_is_warned_of(tmp_path):
    """All tensors have one shape, and the optimizer took them backwards: nothing but the gradients tells."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(6, 6, bias=False) for _ in range(3))).double()
    with torch.no_grad():
        model[0].weight.mul_(0.1)
    data = [(torch.randn(40, 6).double(), torch.randn(40, 6).double())]
    problem = Problem(model, data=data, loss="mse")
    optimizer = torch.optim.Adam(list(model.parameters())[::-1], lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        problem.evaluate(data[0]).backward()
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    found = sharpness(problem, optimizer=str(tmp_path / "state.pt"))
    (doubt,) = (one for one in found.findings if "the state's v" in one.says)
    assert doubt.level == "warn"
    assert "--optimizer train.py:make --state FILE" in doubt.remedy


def test_where_there_is_no_gradient_nothing_goes_uphill():
    model = torch.nn.Linear(3, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    square = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    found = sharpness(square, lr=0.1)
    assert "The next step is zero: there is no gradient here." in says(found)
    assert "uphill" not in says(found) + " ".join(one.why or "" for one in found.readings)


def test_minibatches_and_noise_are_said():
    found = result()
    assert "together; steps of minibatches see that of each" not in says(found)
    several = replace(found, problem=replace(found.problem, batches=4, batch_weights=(0.25,) * 4))
    assert "This is the curvature of all 4 batches together; steps of minibatches see that of each" in says(several)
    noisy = replace(
        found, noise=Noise(scale=12.0, scale_stderr=3.0, simple=20.0, simple_stderr=4.0, pieces=16, samples=2)
    )
    assert "The gradient noise scale is 12.0 ± 3.0 samples" in says(noisy)
    lost = replace(found, noise=Noise(at_least=40.3, why="why", pieces=16, samples=2))
    assert "The gradient noise scale is above 40 samples" in says(lost)


def test_where_checks_failed_nothing_more_is_said():
    found = replace(result(), trusted=False, checks={"hvp_symmetry": 1.0}, check_tolerance=1e-5, point=None)
    assert "stable" not in says(found)
    assert findings(found)[0].level == "bad"


def test_generalization_is_never_claimed():
    for name in ("sharpness", "sharpness-edge", "sharpness-muon"):
        assert "generaliz" not in says(result(name))
    assert "None of them says how well the network generalizes" in render(result(), "html")


def test_the_page_has_ratios_with_the_edge_and_all_readings():
    (chart,) = view(result()).blocks
    assert isinstance(chart, Dots)
    ratios, edge = chart.series
    assert set(edge.values) == {1.0}
    assert [row[0] for row in chart.table.rows] == [
        "lambda_max", "lambda_max in its metric *", "along its next step", "critical, by losses", "adaptive, by |w|",
    ]  # fmt: skip
    assert len(ratios.values) == sum(one.ratio is not None and one.ratio > 0 for one in result().readings)


def test_results_that_lack_something_are_shown():
    empty = replace(
        result(), status="interrupted", readings=(), optimizer=None, decided_by=None, ratio=None, noise=None
    )
    for form in ("text", "markdown", "html"):
        assert "interrupted before anything was measured" in render(empty, form)
    assert view_of(documents.document(empty)).blocks == ()
    unknown = tuple(replace(one, ratio=None, threshold=None) for one in result().readings)
    nothing = replace(result(), readings=unknown, decided_by=None, ratio=None, regime=None, stable=None)
    (table,) = view(nothing).blocks
    assert isinstance(table, Table)
    assert "Nothing here says whether" in says(nothing)
    part = replace(result(), status="interrupted", readings=result().readings[:1], decided_by=None, ratio=None)
    assert "no reading has a threshold" in render(part, "text", width=100)


@pytest.mark.parametrize("train_mode", [False, True])
def test_instability_in_evaluation_mode_is_no_warning_of_a_network_with_batch_norm(train_mode):
    """Running statistics that are far from the batch's make curvature that no step of training meets."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(4)
    norm.running_var.fill_(1e-4)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), norm, torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    data = [(torch.randn(32, 3).double(), torch.randn(32, 1).double())]
    found = sharpness(Problem(model, data=data, loss="mse", train_mode=train_mode), lr=0.2)
    assert found.regime == ("stable" if train_mode else "unstable")
    assert all(one.level == "note" for one in found.findings)
    assert ("--train-mode" in " ".join(one.remedy for one in found.findings)) is not train_mode
    plain = sharpness(Problem(torch.nn.Linear(3, 1).double(), data=data, loss="mse"), lr=20.0)
    assert plain.findings[0].level == "warn"
    assert "evaluation mode" not in says(plain)
