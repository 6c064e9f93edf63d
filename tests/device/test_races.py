"""Races time what was done, and not what was launched."""

import pytest
import torch

from tests import gpu_check


def test_races_wait_for_the_gpu_before_and_after_each_run(monkeypatch):
    pytest.importorskip("hessian_eigenthings")  # contestants are not installed everywhere
    pytest.importorskip("curvlinops")
    from tests.benchmarks import measure

    events = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: events.append("waited"))
    measure.race({"a": lambda: events.append("a"), "b": lambda: events.append("b")}, rounds=1)
    assert events == ["waited", "a", "waited", "waited", "b", "waited"] * 2


def test_so_does_the_check(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: events.append("waited"))
    gpu_check.timed(lambda: events.append("run"), "cuda", rounds=1)
    assert events == ["waited", "run", "waited"] * 3
    events.clear()
    gpu_check.timed(lambda: events.append("run"), "cpu", rounds=1)
    assert events == ["run"] * 3
