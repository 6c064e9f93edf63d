"""All that is measured on a GPU runs on one stream, in order with what runs elsewhere."""

from contextlib import contextmanager

import pytest
import torch

from hessdiag.curvature.measurement import measurement
from hessdiag.machine.arithmetic import rounded
from hessdiag.problem import measuring


class _Stream:
    made = 0

    def __init__(self, index, name="own"):
        self.device, self.name, self.waits = torch.device("cuda", index), name, []
        _Stream.made += 1

    def wait_stream(self, other):
        self.waits.append(other.name)


@pytest.fixture
def cuda(monkeypatch):
    """Torch's streams without a GPU; gives the stack of current ones."""
    current = [_Stream(0, "outside")]
    _Stream.made = 0

    @contextmanager
    def stream(new):
        current.append(new)
        try:
            yield
        finally:
            current.pop()

    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    measuring._stream.cache_clear()
    yield current
    measuring._stream.cache_clear()


def test_one_stream_for_each_device(cuda):
    first = measuring.own_stream(torch.device("cuda"))
    assert measuring.own_stream(torch.device("cuda:0")) is first
    assert measuring.own_stream(torch.device("cuda:1")) is not first
    assert measuring.own_stream(torch.device("cpu")) is None
    assert _Stream.made == 2


def test_it_waits_for_what_was_begun_and_is_waited_for_once(cuda):
    outside, own = cuda[0], measuring.own_stream(torch.device("cuda:0"))
    with measuring.on(own):
        assert cuda[-1] is own
        assert (own.waits, outside.waits) == (["outside"], [])
        with measuring.on(own):  # it is on it already
            assert cuda == [outside, own]
        assert (own.waits, outside.waits) == (["outside"], [])
    assert cuda == [outside]
    assert (own.waits, outside.waits) == (["outside"], ["own"])


def test_it_is_waited_for_after_an_interruption_too(cuda):
    outside, own = cuda[0], measuring.own_stream(torch.device("cuda:0"))
    with pytest.raises(KeyboardInterrupt), measuring.on(own):
        raise KeyboardInterrupt
    assert cuda == [outside]
    assert (own.waits, outside.waits) == (["outside"], ["own"])


def test_a_measurement_runs_on_it_in_ieee_arithmetic(cuda):
    class Problem:
        device = torch.device("cuda:0")

    @measurement()
    def measure(problem, *, factor=1):
        """Words."""
        return cuda[-1].name, rounded(), factor

    assert measure(Problem(), factor=2) == ("own", {}, 2)
    assert measure(problem=Problem()) == ("own", {}, 1)
    assert measure.__doc__ == "Words."
    assert len(cuda) == 1
