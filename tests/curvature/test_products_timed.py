"""What products take is known where a GPU goes on after its launches: until it was waited for."""

import time

import pytest
import torch
from torch import nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg.spread import Alone
from hessdiag.machine import cost
from hessdiag.problem import measuring
from hessdiag.problem.problem import Problem

BUSY = 0.05  # seconds that the device goes on


class _Late(Alone):
    """Sums that are waited for."""

    def summed(self, numbers, /):
        time.sleep(BUSY)
        return numbers


@pytest.mark.parametrize("raw", [False, True])
def test_until_the_device_is_done(monkeypatch, raw):
    model = nn.Linear(2, 1).double()
    H = HessianOperator(
        Problem(model, data=[(torch.ones(3, 2).double(), torch.ones(3, 1).double())], loss="mse"), check=False
    )
    v = torch.ones(3, 1, dtype=torch.float64)
    H @ v  # what comes first
    vars(H)["spread"] = _Late(3)
    monkeypatch.setattr(measuring, "wait", lambda device: time.sleep(BUSY))
    with cost.ledger() as spent:
        H.raw(v) if raw else H @ v
    assert spent.products == 1
    assert BUSY <= spent.seconds < 10 * BUSY
