"""A machine that others use makes torch's threads wait; that is said, and only then."""

import os
import sys
import time
from types import SimpleNamespace

import pytest

from hessdiag.cli import crowding
from hessdiag.cli.crowding import Reading, note


@pytest.mark.parametrize(
    ("others", "threads", "cores", "crowded"),
    [
        (0.0, 2, 2, False),
        (0.4, 2, 2, False),
        (0.6, 2, 2, True),
        (1.9, 1, 2, False),
        (7.0, 8, 16, False),
        (12.0, 8, 16, True),
    ],
)
@pytest.mark.parametrize("own", [0.0, 3.0])
def test_threads_that_have_no_room(others, threads, cores, crowded, own):
    before, after = Reading(10.0, 500.0, 1.0), Reading(12.0, 500.0 + 2 * others + own, 1.0 + own)
    said = note(before, after, threads, cores)
    assert (said is not None) is crowded
    if said is not None:
        assert f"{others:.1f} of {cores} cores" in said
        assert "OMP_NUM_THREADS=1" in said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_system_counts_this_program_too():
    before = crowding.reading()
    while time.process_time() < before.own + 0.3:
        pass
    after = crowding.reading()
    assert after.own - before.own == pytest.approx(0.3, abs=0.05)
    assert after.busy - before.busy > 0.2
    assert after.wall > before.wall


def test_systems_that_do_not_say(monkeypatch, capsys):
    monkeypatch.setattr(crowding.Path, "read_text", lambda path: (_ for _ in ()).throw(FileNotFoundError()))
    assert crowding.reading() is None
    crowding.warn(None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ranks", [None, "2"])
def test_other_ranks_are_no_other_programs(monkeypatch, capsys, ranks):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("WORLD_SIZE", ranks)
    cores = os.cpu_count() or 1
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: cores + 1))
    monkeypatch.setattr(crowding, "reading", lambda: Reading(2.0, 2.0 * cores, 0.0))
    crowding.warn(Reading(1.0, cores, 0.0))
    assert ("other programs keep" in capsys.readouterr().err) is (ranks is None)
