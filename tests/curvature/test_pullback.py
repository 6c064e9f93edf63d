"""Vector-Jacobian products are those of torch.autograd.grad, to the bit."""

import torch
from torch.autograd import graph

from hessdiag.curvature.pullback import pullback


def _outputs():
    torch.manual_seed(0)
    x, y, unused = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    return [x.sin() * y, (x @ y).exp()], [x, y, unused]


def _expected(outputs, inputs, cotangents):
    return torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True, allow_unused=True)


def _same(found, expected):
    return all(a is b if b is None else torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_as_autograd_grad(monkeypatch):
    outputs, inputs = _outputs()
    cotangents = [torch.randn(3, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)]
    expected = _expected(outputs, inputs, cotangents)
    assert expected[2] is None
    assert _same(pullback(outputs, inputs, cotangents), expected)
    monkeypatch.delattr(graph, "_engine_run_backward")
    assert _same(pullback(outputs, inputs, cotangents), expected)


def test_the_graph_of_cotangents_is_made_where_it_is_wanted():
    outputs, inputs = _outputs()
    dual = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (slope,) = pullback(outputs[:1], inputs[:1], [dual], create_graph=True)
    (back,) = pullback([slope], [dual], [torch.ones_like(slope)])
    assert torch.allclose(back, inputs[0].cos() * inputs[1])
    assert not pullback(outputs[:1], inputs[:1], [dual])[0].requires_grad
