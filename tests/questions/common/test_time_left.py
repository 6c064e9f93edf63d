"""The time that is said to be left, held against a clock that products and arithmetic move, and nothing else."""

import time

import pytest
import torch
from torch import nn

from hessdiag.cli import progress
from hessdiag.curvature.sharded import vectors
from hessdiag.linalg import estimators, pairs, tridiagonal
from hessdiag.machine import cost, memory
from hessdiag.machine.work import Work
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import measure as blocks_room
from hessdiag.questions.bounds import measure as bounds_room
from hessdiag.questions.diag_share import measure as share_room
from hessdiag.questions.eigs import measure as eigs_room
from hessdiag.questions.forward import measure as forward_room
from hessdiag.questions.forward import norms as forward_norms
from hessdiag.questions.spectrum import measure as spectrum_room

NEAR = 1.5  # times the truth, or a part of it: what is asked of a time
SEARCH = 2.0  # and of a search, whose residuals do not fall evenly
TENTH = 0.1  # of the work, after which it is asked
LAST = 0.05  # of the whole, that nobody is asked to know


class Clock:
    """Seconds that only `pass_` moves; products, gradients and arithmetic on vectors do."""

    def __init__(self, monkeypatch, product, vector):
        self.now = 1000.0
        for name in ("perf_counter", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)
        monkeypatch.setattr(memory, "pace", lambda size, device: vector)
        self.moved_by(monkeypatch, vectors, "joined", lambda columns, problem, layer, like, _: product * len(like))
        self.moved_by(monkeypatch, estimators.Deflated, "project", lambda free, V: vector * self.taken_out(free, V))
        self.moved_by(monkeypatch, tridiagonal.Passes, "__init__", lambda made, *rows: vector * self.read(*rows))
        self.moved_by(monkeypatch, pairs, "folded", lambda *_: 50.0 * vector)

    @staticmethod
    def read(rows, basis, *_):
        """A pass for the coefficients and one to subtract; norms and copies besides."""
        return len(rows) * (2 * basis.shape[-2] + tridiagonal.TRAFFIC)

    @staticmethod
    def taken_out(free, V):
        return V[0].numel() * (2 * free.vectors.shape[1] + 3) if free.vectors.shape[1] else 0.0

    def pass_(self, seconds):
        self.now += seconds

    def moved_by(self, monkeypatch, owner, name, seconds):
        function = getattr(owner, name)

        def moving(*arguments, **options):
            found = function(*arguments, **options)
            self.pass_(seconds(*arguments))
            return found

        monkeypatch.setattr(owner, name, moving)


class Told:
    """What would be on the screen at every report: when, and what is left at least and at most."""

    def __init__(self, clock, telling):
        self.clock, self.telling, self.times = clock, telling, []

    def __call__(self, done, total, what):
        self.telling(done, total, what)
        if 0 < done < total:
            known = self.telling.ledger.left is not None or not what.startswith(progress.MOST)
            self.times.append((self.clock.now, *(self.telling._range(done, total) if known else (0.0, None))))


def listened(clock, compute):
    """What was told, the beginning and the end, and what was announced."""
    with progress.reporter() as telling:
        told, began = Told(clock, telling), clock.now
        compute(told)
        return told.times, began, clock.now, telling.ledger


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 4)).double()
    return Problem(model, data=[(torch.randn(24, 16).double(), torch.arange(24) % 4)], loss="ce")


def images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(96, 4)).double()
    return Problem(model, data=[(torch.randn(40, 1, 8, 8).double(), torch.arange(40) % 4)], loss="ce")


@pytest.fixture(params=[(1.0, 0.0), (1.0, 0.02), (1.0, 1.0)], ids=["products", "both", "arithmetic"])
def clock(request, monkeypatch):
    for room, name in ((eigs_room, "DENSE_UP_TO"), (spectrum_room, "EXACT_UP_TO"), (blocks_room, "EXACT_UP_TO")):
        monkeypatch.setattr(room, name, 0)
    monkeypatch.setattr(bounds_room, "DENSE_UP_TO", 1)
    monkeypatch.setattr(bounds_room, "EXACT_UP_TO", 1)
    return Clock(monkeypatch, *request.param)


COMMANDS = {
    "spectrum": lambda told: spectrum_room.spectrum(network(), probes=4, steps=60, progress=told),
    "spectrum ggn": lambda told: spectrum_room.spectrum(images(), probes=3, steps=40, operator="ggn", progress=told),
    "diag-share": lambda told: share_room.diag_share(images(), rows=200, progress=told),
    "blocks": lambda told: blocks_room.blocks(network(), probes=300, progress=told),
    "bounds": lambda told: bounds_room.bounds(network(), progress=told),
    "eigs": lambda told: eigs_room.eigs(network(), lowest=2, highest=2, progress=told),
}
ENDS_NOBODY_KNOWS = ("bounds", "eigs")


@pytest.mark.parametrize("command", COMMANDS)
def test_after_a_tenth_the_time_that_is_left_is_known(clock, command):
    """A single time is near the truth; two of them have it between them; and where none is said, the least is true."""
    times, began, ended, _ = listened(clock, COMMANDS[command])
    whole = ended - began
    asked = [entry for entry in times if began + TENTH * whole <= entry[0] < ended]
    assert len(asked) > 1
    known, near = 0, SEARCH if command in ENDS_NOBODY_KNOWS else NEAR
    for now, least, most in asked:
        left = ended - now
        assert least <= near * left + LAST * whole, f"at {now - began:.0f} of {whole:.0f}"
        if most is not None:
            known += 1
            assert most >= (left - LAST * whole) / near, f"at {now - began:.0f} of {whole:.0f}"
    if command not in ENDS_NOBODY_KNOWS:
        assert known == len(asked)


@pytest.mark.parametrize("init", [("lecun", "he_normal"), ("he_normal", "lecun"), "orthogonal"])
def test_networks_that_take_longer_to_draw_count_for_more(clock, monkeypatch, init):
    clock.moved_by(
        monkeypatch, forward_norms, "draw", lambda law, shape: shape[0] * (9.0 if law.endswith("l") else 1.0)
    )
    times, began, ended, _ = listened(
        clock, lambda told: forward_room.forward(depth=120, width=16, seeds=300, init=init, progress=told)
    )
    asked = [entry for entry in times if began + TENTH * (ended - began) <= entry[0] < ended]
    assert len(asked) > 5
    for now, least, most in asked:
        assert least == most == pytest.approx(ended - now, rel=NEAR - 1, abs=LAST * (ended - began))


def test_an_announcement_has_checks_and_arithmetic_in_it(clock):
    """As soon as two products are known; what no search decides is between half and twice of what it takes."""
    _, began, ended, ledger = listened(clock, COMMANDS["spectrum"])
    least, most = ledger.announced
    assert least / 2 < ended - began < 2 * most
    assert most < 3 * (ended - began)


def test_nothing_is_said_before_anything_is_known():
    with cost.ledger() as ledger:
        assert ledger.left is None
        cost.reach(5.0, Work(1, 1), None)
        assert ledger.left is None
        cost.begin()
        cost.enter(2, 1.0)
        cost.reach(5.0, Work(4, 1), None)
        assert ledger.left == (pytest.approx(2.0, rel=0.1), None)
