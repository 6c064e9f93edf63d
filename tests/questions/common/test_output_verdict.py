"""What commands say of Gauss-Newton matrices that are wrong, zero, indefinite or not there."""

import json

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag.cli.main import run
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.errors import ComputeError
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.spectrum import measure as module
from hessdiag.questions.spectrum.measure import spectrum
from tests.curvature.test_linearization import _at_a_kink, _ctc, _net

D = torch.float64


def _says(found):
    return " ".join(finding.says for finding in found.findings)


def _tries(found):
    return " ".join(finding.remedy for finding in found.findings)


def _indefinite(output, target):
    return torch.sin(2 * output - target).mean()


def test_both_ends_are_searched_where_the_loss_is_not_known_to_be_convex(monkeypatch):
    problem = _net(_indefinite)
    exact = spectrum(problem, operator="ggn")
    assert exact.lowest < -0.1
    assert exact.loss_in_output == "unknown"
    assert "is indefinite, for the loss is not convex" in _says(exact)
    assert "by construction" not in _says(exact)
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    sampled = spectrum(problem, operator="ggn", steps=20)
    assert sampled.lowest == pytest.approx(exact.lowest, rel=1e-6)
    assert sampled.highest == pytest.approx(exact.highest, rel=1e-6)


@pytest.mark.parametrize("loss", ["mse", nn.SmoothL1Loss(), F.mse_loss])
def test_a_convex_loss_is_searched_at_one_end(monkeypatch, loss):
    monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    found = spectrum(_net(loss), operator="ggn", steps=10)
    assert found.loss_in_output == "convex"
    assert "positive semidefinite by construction" in _says(found)
    assert all(outlier.eigenvalue > 0 for outlier in found.outliers)


def test_nothing_is_promised_of_an_own_loss_even_where_it_is_convex():
    found = spectrum(_net(lambda z, t: (z - t).square().mean()), operator="ggn")
    assert "nothing promises that there is none" in _says(found)
    assert "by construction" not in _says(found)
    blocks_said = _says(blocks(_net(lambda z, t: (z - t).square().mean(), relu=True)))
    assert "not known to be convex in what it receives" in blocks_said
    assert "negative curvature can only come" not in blocks_said


def _log_probabilities(loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(-1)).double()
    target = torch.arange(6) % 3 if loss is not F.kl_div else torch.softmax(torch.randn(6, 3, dtype=D), -1)
    return Problem(model, data=[(torch.randn(6, 3, dtype=D), target)], loss=loss)


@pytest.mark.parametrize(
    ("loss", "cure"),
    [
        (F.nll_loss, "--loss nll"),
        (nn.NLLLoss(), "--loss nll"),
        (F.kl_div, "cross-entropy with the other distribution"),
        (lambda z, t: -z.gather(1, t[:, None]).mean(), "logits and --loss ce"),
    ],
)
@pytest.mark.parametrize("sampled", [False, True])
def test_a_linear_loss_is_named_and_not_dead_units(monkeypatch, loss, cure, sampled):
    if sampled:
        monkeypatch.setattr(module, "EXACT_UP_TO", 0)
    problem = _log_probabilities(loss)
    for found in (spectrum(problem, operator="ggn", steps=10), blocks(problem)):
        assert found.loss_in_output == "linear"
        assert "is linear in what it receives" in _says(found)
        assert cure in _tries(found)
        assert "dead" not in _says(found) + " ".join(finding.because for finding in found.findings)
        assert found.status == "ok"
    assert (found.gauss_newton_norm, found.residual_share) == (0.0, 1.0)


def test_the_cure_works():
    """--loss nll has the Gauss-Newton matrix of the logits; the Fisher matrix of nll_loss is the same."""
    named, torchs = _log_probabilities("nll"), _log_probabilities(F.nll_loss)
    found = blocks(named)
    assert found.loss_in_output == "convex"
    logits = Problem(torchs.model[:-1], data=torchs.data, loss="ce")
    assert found.gauss_newton_norm == pytest.approx(blocks(logits).gauss_newton_norm, rel=1e-9)
    unit = torch.eye(torchs.n_parameters, dtype=D)
    assert float((FisherOperator(torchs) @ unit).norm()) == pytest.approx(found.gauss_newton_norm, rel=1e-9)


@pytest.mark.parametrize("probes", [None, 8])
def test_a_loss_without_second_derivative_leaves_the_hessians_blocks(probes):
    problem = _net(_ctc)
    found = blocks(problem, probes=probes)
    assert (found.gauss_newton, found.residual, found.loss_in_output, found.status) == (None, None, None, "ok")
    assert "has no second derivative in the output" in found.split_missing
    assert found.norm > 0
    assert "ggn_quadratic_form" not in found.checks
    assert "Only the Hessian's blocks are given" in _says(found)
    with pytest.raises(ComputeError, match="has no second derivative") as error:
        spectrum(problem, operator="ggn")
    assert error.value.hint.startswith("--operator hessian")


def _normalized_sample_of_zeros():
    """The output of a sample of zeros is zero whatever the weights are; normalize() has no second derivative there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()
    x = torch.randn(8, 4, dtype=D)
    x[2] = 0.0

    def loss(output, target):
        return (F.normalize(output, dim=1) * F.one_hot(target, 3)).sum(1).neg().mean()

    return Problem(model, data=[(x, torch.randint(3, (8,)))], loss=loss)


def test_a_loss_whose_second_derivative_is_not_finite_leaves_the_hessians_blocks():
    problem = _normalized_sample_of_zeros()
    found = blocks(problem)
    assert (found.gauss_newton, found.status) == (None, "ok")
    assert "NaN or infinite at this output" in found.split_missing
    x, target = problem.data[0]
    without = Problem(
        problem.model, data=[(x[[0, 1, 3, 4, 5, 6, 7]], target[[0, 1, 3, 4, 5, 6, 7]])], loss=problem.loss
    )
    assert found.norm == pytest.approx(7 / 8 * blocks(without).norm, rel=1e-8)
    with pytest.raises(ComputeError, match="no second derivative"):
        spectrum(problem, operator="ggn")


def test_outputs_at_a_kink_are_said():
    found = spectrum(_at_a_kink("mse"), operator="ggn")
    assert (found.outputs_at_kink, found.status) == (True, "ok")
    assert "The outputs have a kink at these parameters" in _says(found)
    assert blocks(_at_a_kink("mse")).status == "ok"
    assert spectrum(_net("mse"), operator="ggn").outputs_at_kink is False


def test_a_penalty_in_the_loss_is_said():
    plain = _net("mse")
    penalized = Problem(
        plain.model,
        data=plain.data,
        loss=lambda z, t: F.mse_loss(z, t) + sum(p.square().sum() for p in plain.model.parameters()),
    )
    for problem, expected in ((penalized, True), (plain, False)):
        for found in (blocks(problem), spectrum(problem, operator="ggn")):
            assert found.loss_uses_parameters is expected
            assert ("by another way than the model's output" in _says(found)) is expected


SCRIPT = """
import torch
from torch import nn

torch.manual_seed(0)


def build(loss):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return model, [(torch.randn(6, 3).double(), torch.rand(6, 2).double())], loss


def detached():
    return build(lambda z, t: ((z - t).detach() ** 2 * (z - t) ** 2).mean())


def pair():
    model, data, _ = build(None)
    model.append(nn.Module())
    model[-1].forward = lambda z: {"mean": z[:, :1], "spread": z[:, 1:]}
    return model, data, lambda out, t: (out["mean"] * out["spread"].exp() - t[:, :1]).square().mean()
"""


def _document(capsys, *argv):
    code = run([*argv, "--json"])
    return code, json.loads(capsys.readouterr().out or "null")


def test_a_comparison_that_fails_ends_with_four(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    for command, cause in (
        (["spectrum", "train.py:detached", "--operator", "ggn"], "not the loss's curvature along the linearized model"),
        (["blocks", "train.py:detached"], "The gradient is not that of the loss"),  # which is the cause of the other
    ):
        code, document = _document(capsys, *command)
        assert (code, document["status"]) == (4, "inexact")
        assert document["checks"]["ggn_quadratic_form"] > 0.1
        assert cause in " ".join(item["says"] for item in document["verdict"])


def test_several_outputs_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    for command in (["spectrum", "train.py:pair", "--operator", "ggn"], ["blocks", "train.py:pair"]):
        code, document = _document(capsys, *command)
        assert (code, document["status"], document["problem"]["loss_kind"]) == (0, "ok", None)
        assert document["checks"]["ggn_quadratic_form"] < 1e-8
        assert document["result"]["loss_in_output"] == "unknown"
