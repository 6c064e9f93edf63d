"""Points where autograd's second derivative is not the answer: right by another engine, or said so, by every command."""

import warnings

import pytest
import torch

import hessdiag
from tests.architectures import oracle
from tests.architectures.points import POINTS
from tests.reference import numbers

COMMANDS = ("diag_share", "eigs", "spectrum", "bounds", "blocks")
OF_ANSWER = {
    kind: [name for name, point in POINTS.items() if point.answer == kind] for kind in ("differences", "kink", "none")
}


def _said(found):
    return " ".join(f"{finding.says} {finding.because} {finding.remedy}" for finding in found.findings).lower()


def _measured(name, command):
    return getattr(hessdiag, command)(oracle.fresh(name).problem)


def _numbers(found, H, room):
    """The command's own main numbers against the matrix."""
    A, values = H.abs(), torch.linalg.eigvalsh(H)
    if type(found).__name__ == "DiagShare":
        assert found.diag_share == pytest.approx(float(A.diagonal().sum() / A.sum()), rel=100 * room)
    elif type(found).__name__ == "Eigs":
        assert found.lowest[0].eigenvalue == pytest.approx(float(values[0]), abs=10 * room * float(H.norm()))
        assert found.highest[-1].eigenvalue == pytest.approx(float(values[-1]), abs=10 * room * float(H.norm()))
    elif type(found).__name__ == "Spectrum":
        assert found.trace == pytest.approx(float(H.trace()), abs=10 * room * float(A.diagonal().sum()))
        assert found.frobenius == pytest.approx(float(H.norm()), rel=10 * room)
    elif type(found).__name__ == "Bounds":
        radii = A.sum(1) - A.diagonal()
        discs = float((H.diagonal() - radii).min()), float((H.diagonal() + radii).max())
        assert found.gershgorin == pytest.approx(discs, abs=100 * room * float(H.norm()))
    else:
        assert found.norm == pytest.approx(float(H.norm()), rel=10 * room)


@pytest.mark.parametrize("name", OF_ANSWER["differences"])
@pytest.mark.parametrize("command", COMMANDS)
def test_smooth_points_are_measured_by_differences(name, command):
    found = _measured(name, command)
    assert found.status == "ok"
    assert "differences" in found.engine
    assert any(word in _said(found) for word in POINTS[name].words)
    assert "--dtype float64" not in _said(found)
    _numbers(found, oracle.hessian(name), oracle.built(name).allowed)


@pytest.mark.parametrize("name", OF_ANSWER["differences"])
def test_matrix_from_python_at_smooth_points(name):
    """Right, or refused, or warned about: never wrong in silence."""
    case = oracle.fresh(name)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            H = hessdiag.hessian(case.problem)
    except hessdiag.HessdiagError:
        return
    assert heard or oracle.apart(H, oracle.hessian(name)) <= case.allowed


@pytest.mark.parametrize("name", OF_ANSWER["kink"])
@pytest.mark.parametrize("command", COMMANDS)
def test_kinks_are_said_and_one_piece_is_measured(name, command):
    found = _measured(name, command)
    assert found.status == "ok"
    assert any(word in _said(found) for word in POINTS[name].words)
    assert any(
        finding.level == "warn" and "kink" in f"{finding.says} {finding.because}".lower() for finding in found.findings
    )
    _numbers(found, oracle.hessian(name), oracle.built(name).allowed)


@pytest.mark.parametrize("name", OF_ANSWER["none"])
@pytest.mark.parametrize("command", COMMANDS)
def test_where_there_is_no_answer(name, command):
    """Status inexact (exit code 4) with the cause in words, or one refusal that names it; and no proof of anything."""
    case = oracle.fresh(name)
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    try:
        found = getattr(hessdiag, command)(case.problem)
    except hessdiag.HessdiagError as error:
        said = str(error).lower()
    else:
        assert found.status == "inexact"
        said = _said(found)
        assert "hessian is exactly zero" not in said
        assert not any(
            finding.level in ("ok", "note") and "proven" in finding.says and "not proven" not in finding.says
            for finding in found.findings
        )
        certificate = getattr(found, "negative_certificate", None)
        assert certificate is None or not certificate.certain
    assert any(word in said for word in POINTS[name].words)
    assert all(torch.equal(value, before[key]) for key, value in case.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in case.model.parameters())


@pytest.mark.parametrize("name", OF_ANSWER["none"])
def test_matrix_from_python_where_there_is_none(name):
    """It is refused, or warned about."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            hessdiag.hessian(oracle.fresh(name).problem)
        except hessdiag.HessdiagError:
            return
    assert heard


@pytest.mark.parametrize("command", COMMANDS)
def test_one_draw_of_torchs_random_numbers(command):
    """It is held, and said; or the answer is not to be trusted, and why is said."""
    found = _measured("dropout_that_is_always_on", command)
    assert "random" in _said(found) or "draw" in _said(found)
    if found.status == "ok":
        again = _measured("dropout_that_is_always_on", command)
        assert numbers(again) == numbers(found)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["constants_of_float32_inside", "mixed_precision_inside", "model_that_holds_a_lock"])
def test_models_that_cannot_be_moved_to_float64(name, command):
    """They are checked as far as they can be, alike by all commands."""
    found = _measured(name, command)
    if name == "mixed_precision_inside" and command in (
        "eigs",
        "bounds",
    ):  # rounding is above the residual they ask for
        assert "converge" in _said(found)
        return
    assert found.status == "ok"
    assert ("copied" in _said(found)) == (name == "model_that_holds_a_lock")
    _numbers(found, oracle.hessian(name), oracle.built(name).allowed)
