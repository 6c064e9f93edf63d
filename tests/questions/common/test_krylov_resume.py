"""A killed run goes on bit for bit, with at most one unit computed again."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.machine import cost
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.runs import pieces as pieces_module
from hessdiag.questions.eigs import measure as eigs_module
from hessdiag.questions.eigs.measure import eigs
from hessdiag.questions.spectrum import measure as spectrum_module
from hessdiag.questions.spectrum.measure import spectrum
from tests.reference import numbers


def problem(n=24):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.Tanh(), torch.nn.Linear(n, 3)).double()
    x = torch.randn(16, n, dtype=torch.float64)
    return Problem(model, data=[(x, torch.randn(16, 3, dtype=torch.float64))], loss="mse")


@pytest.fixture(autouse=True)
def iterative(monkeypatch):
    monkeypatch.setattr(eigs_module, "DENSE_UP_TO", 50)
    monkeypatch.setattr(spectrum_module, "EXACT_UP_TO", 50)
    monkeypatch.setattr(pieces_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(pieces_module, "SAVE_SHARE", 1e9)


class Killed(BaseException):
    """As good as kill -9: nothing catches it."""


def killed_after(products, compute):
    def hear(ledger):
        if ledger.products >= products:
            raise Killed

    with cost.ledger(hear) as spent:
        try:
            return compute(), spent.products
        except Killed:
            return None, spent.products


MEASURE = {
    "eigs": lambda resume=None: eigs(problem(), lowest=2, highest=2, tol=1e-6, max_basis=20, resume=resume),
    "spectrum": lambda resume=None: spectrum(problem(), probes=4, steps=12, resume=resume),
}


@pytest.mark.parametrize("command", MEASURE)
def test_a_killed_run_goes_on_bit_for_bit(command, tmp_path):
    with cost.ledger() as spent:
        whole = MEASURE[command]()
    expected = json.dumps(numbers(whole))
    rng = np.random.default_rng(0)
    for trial, products in enumerate(rng.integers(8, int(spent.products), 5)):
        folder = tmp_path / str(trial)
        found, before = killed_after(products, lambda folder=folder: MEASURE[command](folder))
        assert found is None
        again, after = killed_after(10**9, lambda folder=folder: MEASURE[command](folder))
        assert json.dumps(numbers(again)) == expected
        if command == "eigs":  # the check of the point and the gradient's curvature, and one block, are computed anew
            assert before + after <= spent.products + 8 + 2
            assert products < 20 or again.resumed_pieces > 0
    assert whole.resumed_pieces == 0


def test_pieces_of_another_tolerance_are_refused(tmp_path):
    eigs(problem(), lowest=1, highest=1, tol=1e-3, resume=tmp_path / "kept")
    with pytest.raises(SpecError, match=r"tol was 0\.001 and is 0\.01"):
        eigs(problem(), lowest=1, highest=1, tol=1e-2, resume=tmp_path / "kept")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_kill_nine_on_the_command_line(tmp_path):
    """One real kill: what is on the disk is whole whenever the process dies."""
    command = [sys.executable, "-m", "hessdiag", "eigs", "builtin:mlp(depth=3,width=40)", "--json", "--tol", "1e-9"]
    command += ["--max-basis", "40", "--color", "never"]
    clean = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    kept = [*command, "--resume", str(tmp_path / "kept")]
    process = subprocess.Popen(kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "kept" / "krylov.npz").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = json.loads(subprocess.run(kept, capture_output=True, text=True, check=True).stdout)
    assert again["result"] == clean["result"]
