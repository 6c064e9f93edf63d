"""Networks that are drawn ahead are those that are drawn when they are needed."""

from dataclasses import replace

import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.machine import capacity
from hessdiag.nets import ahead as module
from hessdiag.nets.ahead import drawn_ahead
from hessdiag.nets.ensemble import Ensemble

CHUNKS = [(0, 4), (4, 8), (8, 9)]


@pytest.fixture(params=[0, 1, 8])
def in_advance(request, monkeypatch):
    monkeypatch.setattr(capacity, "CPU", replace(capacity.CPU, drawn_ahead=request.param))
    monkeypatch.setattr(module.os, "cpu_count", lambda: 16)
    return request.param


def test_the_networks_are_the_same(in_advance):
    ensemble = Ensemble(depth=3, width=5, init="orthogonal", batch=2, seed=3)
    for (start, stop), sample in zip(CHUNKS, drawn_ahead(ensemble, CHUNKS), strict=True):
        expected, found = ensemble.draw(start, stop - start), sample()
        assert len(found.weights) == 3
        pairs = [*zip(expected.weights, found.weights, strict=True), (expected.x, found.x), (expected.y, found.y)]
        assert all(torch.equal(one, other) for one, other in [*pairs, (expected.u, found.u)])
        assert sample() is found


def test_what_is_not_asked_for_is_not_drawn(in_advance, monkeypatch):
    drawn = []
    draw = Ensemble.draw
    monkeypatch.setattr(Ensemble, "draw", lambda self, start, count: drawn.append(start) or draw(self, start, count))
    samples = drawn_ahead(Ensemble(depth=2, width=3, init="he_normal", batch=2), CHUNKS)
    next(samples)
    second = next(samples)
    assert drawn == []
    second()
    samples.close()  # and waits for nothing
    assert drawn[0] == 4
    assert set(drawn) <= ({4, 8} if in_advance else {4})


def test_an_error_while_drawing_is_raised_where_the_networks_are_needed(in_advance):
    samples = drawn_ahead(Ensemble(depth=2, width=3, init="nothing", batch=2), CHUNKS)
    sample = next(samples)
    with pytest.raises(SpecError, match="nothing"):
        sample()
