"""What measurements of random networks share: refusals, progress, pieces, and what an interrupt leaves."""

import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.questions.common.ensembles.plan import (
    Meter,
    Plan,
    distinct_inits,
    drawn_from,
    refuse_below,
    until_interrupted,
)


def test_the_first_number_that_is_too_small_is_named_by_its_flag():
    refuse_below(2, 8, seeds=2, hessian_seeds=None, width="same")
    with pytest.raises(SpecError, match="--hessian-seeds must be at least 2, not 1") as refused:
        refuse_below(2, 8, seeds=2, hessian_seeds=1, depth=0)
    assert refused.value.hint == "--hessian-seeds 8"


def test_initializations_are_a_list_without_repetitions():
    assert distinct_inits(["lecun", "he_normal", "lecun"]) == ("lecun", "he_normal")
    with pytest.raises(SpecError, match="no initialization"):
        distinct_inits([])
    with pytest.raises(SpecError, match="zeros"):
        drawn_from("zeros")


def test_progress_never_passes_its_total():
    heard = []
    meter = Meter(lambda *said: heard.append(said), 4)
    meter.say("networks")
    for steps in (1.4, 1.4, 3):
        meter.advance(steps)
    meter.reach(2.0)
    assert heard == [(0, 4, "networks"), (1, 4, ""), (3, 4, ""), (4, 4, ""), (2, 4, "")]
    Meter(None, 1).advance()


def test_a_plan_is_said_with_what_is_kept_of_it(tmp_path):
    plan = Plan(what="2 networks", steps=3, settings={"seed": 0}, device=torch.device("cpu"), kept=(1e6, 2))
    heard = []
    run = plan.begin(tmp_path / "kept", lambda *said: heard.append(said))
    run.meter.advance()
    assert heard == [(0, 3, f"2 networks; {tmp_path / 'kept'} takes up to 1.01 MB of disk"), (1, 3, "")]
    assert (run.pieces.kept, plan.begin(None, None).pieces.kept) == (True, False)


def test_an_interrupt_leaves_the_parts_before_it():
    def parts(count):
        yield from range(count)
        raise KeyboardInterrupt

    assert until_interrupted(parts(2)) == ([0, 1], True)
    assert until_interrupted(iter("ab")) == (["a", "b"], False)
    with pytest.raises(KeyboardInterrupt):
        until_interrupted(parts(0))
