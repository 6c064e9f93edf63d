"""What an interrupt leaves of random networks: those that were done, counted as what they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.chain import measure as chain_module
from hessdiag.questions.chain.measure import chain
from hessdiag.questions.common.ensembles.plan import built_in
from hessdiag.questions.common.result import ModelSubject
from hessdiag.questions.documents import loads
from hessdiag.questions.forward import norms as forward_norms
from hessdiag.questions.forward.assemble import unmeasured
from hessdiag.questions.forward.measure import forward
from hessdiag.questions.forward.model import forward_model
from hessdiag.questions.pages import render
from hessdiag.questions.vanishing import measure as vanishing_module
from hessdiag.questions.vanishing.measure import vanishing
from tests.interrupts import ends_after


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Ten networks of width 8 at a time."""
    monkeypatch.setattr(forward_norms, "CHUNK_NUMBERS", 640)


def _text(found):
    forms = {form: render(loads(found.to_json()), form) for form in ("text", "markdown", "html")}
    return " ".join(forms["text"].split())


def _model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return Problem(model, data=[(torch.randn(5, 4).double(), torch.arange(5) % 3)], loss="ce")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solve": "median"},
        {"solve": "rms"},
        {"activation": "tanh"},
        {"activation": "tanh", "solve": "median"},
        {"activation": "tanh", "solve": "median", "per_layer": True},
    ],
    ids=str,
)
def test_networks_that_are_done_are_those_of_the_whole_run(options):
    """At moments from the first chunk to the last stage."""
    setting = {"depth": 4, "width": 8, "seeds": 40, "init": ("lecun", "he_normal"), **options}
    heard = []
    whole = forward(**setting, progress=lambda *_: heard.append(1))
    known, stages = {entry.init: entry for entry in whole.inits}, set()
    for calls in (*range(1, 14, 3), *np.linspace(20, len(heard) - 1, 6).astype(int)):
        try:
            found = forward(**setting, progress=ends_after(calls))
        except KeyboardInterrupt:
            assert calls <= 4, "the first chunk of four layers was done"
            continue
        assert (found.status, whole.status) == ("interrupted", "ok")
        for entry in found.inits:
            assert entry.seeds % 10 == 0
            stages.add((entry.init, entry.seeds, entry.solution is None))
            assert entry.last.live <= entry.seeds
            if entry.seeds == 40:
                assert entry.layers == known[entry.init].layers
            else:
                phi = found.inits[0].activation
                fewer = forward(depth=4, width=8, seeds=entry.seeds, init=entry.init, activation=phi)
                expected = fewer.inits[0].last  # gains beside the scales round otherwise
                assert entry.last.log_median == pytest.approx(expected.log_median, rel=1e-9)
                assert entry.last.rms == pytest.approx(expected.rms, rel=1e-9)
        said = next(finding.says for finding in found.findings if finding.says.startswith("Interrupted"))
        for entry in found.inits:
            assert (f"{entry.init} from {entry.seeds}" in said) is (entry.seeds < 40)
    assert len(stages) > 2


def test_the_first_distribution_answers_from_what_is_done():
    found = forward(depth=4, width=8, seeds=40, progress=ends_after(4 * 2 + 1))
    assert [(entry.init, entry.seeds) for entry in found.inits] == [("lecun", 20)]
    same = forward(depth=4, width=8, seeds=20, init="lecun")
    assert found.inits[0].layers == same.inits[0].layers
    text = _text(found)
    assert "Interrupted: lecun from 20 of 40 networks; nothing of xavier_normal and he_normal" in text
    assert "20 networks" in text


def test_before_two_networks_that_is_said():
    assert "nothing can be said" in _text(unmeasured(built_in("cpu", "cpu", 0)))


@pytest.mark.parametrize("solve", [None, "median"])
def test_a_model_answers_from_the_networks_that_are_done(solve):
    whole = forward_model(_model(), seeds=12, init=("lecun", "he_normal"), solve=solve)
    for calls in (2, 4, 12, 14, 30, 60):
        found = forward_model(
            _model(), seeds=12, init=("lecun", "he_normal"), solve=solve, progress=ends_after(calls + 1)
        )
        assert found.status == "interrupted" or (solve is None and calls > 24)
        counts = [entry.seeds for entry in found.inits]
        assert counts[0] == min(calls + 1, 12)
        if counts[0] == 12:
            assert found.inits[0].layers == whole.inits[0].layers
        if found.status == "interrupted":
            assert any(finding.says.startswith("Interrupted") for finding in found.findings)
    _text(found)


def test_before_two_networks_of_a_model_its_own_weights_answer():
    whole = forward_model(_model(), seeds=12, init="lecun")
    found = forward_model(_model(), seeds=12, init="lecun", progress=ends_after(1))
    assert (found.status, found.inits, found.own) == ("interrupted", (), whole.own)
    text = _text(found)
    assert "no fresh network was measured; the model as it is was" in text
    assert "The model as it is: its own weights" in text


def test_an_interrupt_after_the_last_network_of_a_model_leaves_nothing_out():
    whole = forward_model(_model(), seeds=4, init="lecun")
    found = forward_model(_model(), seeds=4, init="lecun", progress=ends_after(4))
    assert [entry.seeds for entry in found.inits] == [4]
    assert (found.status, found.findings) == (whole.status, whole.findings)


@pytest.mark.parametrize("stage", ["fresh networks", "search"])
def test_an_interrupt_of_the_gain_keeps_the_networks(stage, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    if stage == "search":
        monkeypatch.setattr("hessdiag.questions.forward.model.search_gain", stopped)
    else:
        monkeypatch.setattr("hessdiag.questions.forward.model.solution", stopped)
    found = forward_model(_model(), seeds=6, init="lecun", solve="median")
    assert (found.status, found.inits[0].seeds, found.inits[0].solution) == ("interrupted", 6, None)
    assert "no gain was tried" in next(f.says for f in found.findings if f.says.startswith("Interrupted"))


def test_an_interrupted_chain_is_a_shorter_one():
    whole = chain(length=30, seeds=200)
    for calls in (2, 5, 12, 23):
        found = chain(length=30, seeds=200, progress=ends_after(calls))
        length = found.length
        assert found.status == "interrupted"
        assert length < 30
        assert found.lengths == whole.lengths[: len(found.lengths)]
        assert (found.median_abs, found.theory_median_abs) == (
            whole.lengths[len(found.lengths) - 1].product.median_abs,
            whole.lengths[len(found.lengths) - 1].product.theory_median_abs,
        )
        assert f"Interrupted at {length} of 30 weights" in _text(found)
    with pytest.raises(KeyboardInterrupt):
        chain(length=30, seeds=200, progress=ends_after(0))


def test_an_interrupt_after_the_last_weight_waits_for_the_exact_laws(monkeypatch):
    real, left = chain_module.plateau, [1]

    def slow(*args):
        if left.pop() if left else 0:
            raise KeyboardInterrupt
        return real(*args)

    whole = chain(length=5, seeds=50)
    monkeypatch.setattr(chain_module, "plateau", slow)
    found = chain(length=5, seeds=50)
    assert (found.status, replace(found, provenance=whole.provenance)) == ("ok", whole)


@pytest.mark.parametrize("width", [None, 4, "same"])
def test_before_the_first_depth_that_is_said(width):
    own = {} if width is None else {"width": width, "init": "he_uniform", "activation": "relu"}
    problem = built_in("cpu", "cpu", 0) if width else ModelSubject(model="m", device="cpu", dtype="float64", seed=0)
    found = vanishing_module.unmeasured(problem, seeds=5, batch=3, **own)
    text = _text(found)
    assert "nothing can be said" in text
    assert "no depth was finished" in text


def test_depths_that_an_interrupt_left_out_are_named():
    heard = []
    vanishing(depth=8, width=4, seeds=6, hessian_seeds=4, progress=lambda *_: heard.append(1))
    seen = set()
    for calls in range(len(heard)):
        try:
            found = vanishing(depth=8, width=4, seeds=6, hessian_seeds=4, progress=ends_after(calls))
        except KeyboardInterrupt:
            continue
        depths = [entry.depth for entry in found.depths]
        missing = [str(depth) for depth in (2, 4, 8) if depth not in depths]
        says = next(finding.says for finding in found.findings if finding.says.startswith("Interrupted"))
        assert says == f"Interrupted: nothing of depth {' and '.join(missing)}."
        seen.add(len(depths))
    assert seen == {1, 2}
