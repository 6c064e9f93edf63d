"""The Gauss-Newton matrix is J'BJ in everything that a loss receives: output structures x losses, by torch.func."""

import functools
from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hessdiag.curvature import block_norms, exact
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.neuron_space import NeuronSpace
from hessdiag.errors import ComputeError, LoadError, SpecError
from hessdiag.problem import structure
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.measure import blocks

D = torch.float64


class Heads(nn.Module):
    """Two heads and a scalar on a common trunk, in whatever form `wrap` gives them."""

    def __init__(self, wrap):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(*self.heads(x))

    def heads(self, x):
        h = torch.tanh(self.trunk(x))
        return self.a(h), self.b(h), h.square().mean()


Triple = namedtuple("Triple", "a b c")


@dataclass
class Record:
    a: Tensor
    b: Tensor
    c: Tensor
    sizes: Any = None

    def __post_init__(self):
        self.both = torch.cat([self.a, self.b], 1)  # what is derived in a constructor is received as well


@dataclass(frozen=True, slots=True)
class Slotted:
    a: Tensor
    b: Tensor
    c: Tensor


class Attributes(dict):
    """A mapping whose items are attributes, as many libraries have one."""

    __getattr__ = dict.__getitem__


@functools.cache
def _output_class():
    from transformers.modeling_outputs import ModelOutput

    @dataclass
    class Output(ModelOutput):
        loss: Tensor | None = None
        logits: Tensor | None = None
        extra: tuple[Tensor, ...] | None = None

    return Output


def _model_output(a, b, c):
    return _output_class()(logits=a, extra=(b, c))


STRUCTURES = {
    "tuple": (lambda a, b, c: (a, b, c), lambda out: out),
    "list": (lambda a, b, c: [a, b, c], lambda out: out),
    "dict": (lambda a, b, c: {"a": a, "b": b, "c": c}, lambda out: (out["a"], out["b"], out["c"])),
    "nested": (
        lambda a, b, c: {"heads": [a, {"b": b}], "aux": (None, 3, torch.tensor(2), c)},
        lambda out: (out["heads"][0], out["heads"][1]["b"], out["aux"][3]),
    ),
    "named tuple": (Triple, lambda out: (out.a, out.b, out.c)),
    "dataclass": (Record, lambda out: (out.both[:, :2], out.b, out.c)),
    "frozen dataclass with slots": (Slotted, lambda out: (out.a, out.b, out.c)),
    "model output": (_model_output, lambda out: (out.logits, *out["extra"])),
    "namespace": (lambda a, b, c: SimpleNamespace(a=a, rest=(b, c)), lambda out: (out.a, *out.rest)),
    "mapping with attributes": (lambda a, b, c: Attributes(a=a, b=b, c=c), lambda out: (out.a, out["b"], out.c)),
    "user dict": (lambda a, b, c: UserDict(a=a, b=b, c=c), lambda out: (out["a"], out["b"], out["c"])),
    "distribution": (
        lambda a, b, c: (torch.distributions.Normal(a, b.exp()), c),
        lambda out: (out[0].mean, out[0].stddev.log(), out[1]),
    ),
    "one complex tensor": (
        lambda a, b, c: (torch.complex(a, b), c),
        lambda out: (out[0].real, out[0].imag, out[1]),
    ),
}


def _gaussian(a, b, c, t):
    return 0.5 * ((t - a) ** 2 * torch.exp(-b) + b).mean() + 0.1 * c.exp()


def _ce_with_penalty(a, b, c, t):
    return F.cross_entropy(a, (t[:, 0] > 0).long()) + b.square().mean() * c


def _cosine(a, b, c, t):
    return (1 - F.cosine_similarity(a, b + t)).mean() + torch.cos(3 * c)


def _huber(a, b, c, t):
    return F.huber_loss(a, 2 * t, delta=0.7) + F.smooth_l1_loss(b, a * c)


def _flow(a, b, c, t):
    return 0.5 * (a - t).square().sum(1).mean() - b.sum(1).mean() - c  # linear in the log-determinants


def _vae(a, b, c, t):
    return (torch.sigmoid(a) - t).square().sum(1).mean() + 0.5 * (a**2 + b.exp() - b - 1).sum(1).mean() * c


LOSSES = {
    "gaussian": _gaussian,
    "ce and penalty": _ce_with_penalty,
    "cosine": _cosine,
    "huber": _huber,
    "flow": _flow,
    "vae": _vae,
}


def _data():
    generator = torch.Generator().manual_seed(1)
    return [
        tuple(torch.randn(n, k, generator=generator, dtype=D) for k in (3, 2)) for n in (5, 2)
    ]  # weights 5/7 and 2/7


def _problem(form, name):
    wrap, unwrap = STRUCTURES[form]
    loss = LOSSES[name]
    return Problem(Heads(wrap).double(), data=_data(), loss=lambda output, target: loss(*unwrap(output), target))


@functools.cache
def _oracle(name, exponential=False):
    """H, J'BJ and the residual sum_k dl/dz_k d2z_k, each by torch.func on flat vectors.

    With `exponential`, the loss receives exp(b) in the place of b: another argument, and another split.
    """
    model, loss = Heads(Triple).double(), LOSSES[name]
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]
    theta = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    totals = [torch.zeros(len(theta), len(theta), dtype=D) for _ in range(3)]
    for x, t in _data():
        n = len(x)

        def outputs(theta, x=x):
            parts = torch.split(theta, [shape.numel() for shape in shapes])
            state = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
            a, b, c = torch.func.functional_call(model, state, (x,))
            return torch.cat([part.reshape(-1) for part in (a, b.exp() if exponential else b, c)])

        def value(z, n=n, t=t):
            b = z[2 * n : 4 * n].view(n, 2)
            return loss(z[: 2 * n].view(n, 2), b.log() if exponential else b, z[4 * n], t)

        z = outputs(theta)
        J, B = torch.func.jacrev(outputs)(theta), torch.func.hessian(value)(z)
        slope = torch.func.grad(value)(z)
        parts = (
            torch.func.hessian(lambda theta, f=outputs, g=value: g(f(theta)))(theta),
            J.T @ B @ J,
            torch.func.hessian(lambda theta, f=outputs, s=slope: s @ f(theta))(theta),
        )
        for total, part in zip(totals, parts, strict=True):
            total += n / 7 * part.detach()
    return totals


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("form", STRUCTURES)
def test_hessian_is_gauss_newton_matrix_and_residual(form, name):
    if form == "model output":
        pytest.importorskip("transformers")
    H, G, R = _oracle(name, exponential=form == "distribution")
    torch.testing.assert_close(H, G + R, rtol=1e-9, atol=1e-12)
    problem = _problem(form, name)
    unit = torch.eye(problem.n_parameters, dtype=D)
    torch.testing.assert_close(GaussNewtonOperator(problem) @ unit, G, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(hessian(problem), H, rtol=1e-9, atol=1e-12)


def test_one_tensor_of_several_counts_where_the_loss_takes_one():
    """The loss named mse receives the first of a tuple, as before, and nothing else."""
    wrapped, plain = (
        Problem(Heads(wrap).double(), data=_data(), loss="mse")
        for wrap in (lambda a, b, c: (a, b, c), lambda a, b, c: a)
    )
    unit = torch.eye(wrapped.n_parameters, dtype=D)
    torch.testing.assert_close(GaussNewtonOperator(wrapped) @ unit, GaussNewtonOperator(plain) @ unit)


def test_outputs_count_everything_that_is_received():
    """The largest rank that a Gauss-Newton matrix can have: here 2 + 2 numbers of each sample, and one of all 5."""
    assert _problem("nested", "gaussian").n_outputs == (5 * 4 + 1) // 5
    assert Problem(Heads(lambda a, b, c: (a, b, c)).double(), data=_data(), loss="mse").n_outputs == 2


def test_a_loss_may_ignore_an_output_and_write_to_another():
    def loss(output, target):
        output[0].sub_(target)
        return output[0].square().mean()

    problem = Problem(Heads(lambda a, b, c: [a * 1, b, c]).double(), data=_data(), loss=loss)
    plain = Problem(Heads(lambda a, b, c: a).double(), data=_data(), loss=lambda a, t: (a - t).square().mean())
    unit = torch.eye(problem.n_parameters, dtype=D)
    torch.testing.assert_close(GaussNewtonOperator(problem) @ unit, GaussNewtonOperator(plain) @ unit)


def test_outputs_that_are_functions_of_each_other_are_arguments_of_their_own():
    """The loss receives z and z^2: the square's curvature is the model's, and belongs to the residual."""

    class Squared(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([3.0], dtype=D))

        def forward(self, x):
            z = self.w * x
            return z, z.square()

    data = [(torch.tensor([[2.0]], dtype=D), torch.zeros(1, 1, dtype=D))]
    problem = Problem(Squared(), data=data, loss=lambda out, t: (out[0].square() + 5 * out[1] + out[0] * out[1]).sum())
    one = torch.ones(1, dtype=D)
    # z = 2 w = 6, z^2 = 36; J = (2, 24); B = [[2, 1], [1, 0]]; J'BJ = 8 + 2 * 48 = 104; H = d2(4 w^2 + 20 w^2 + 8 w^3)
    torch.testing.assert_close(GaussNewtonOperator(problem) @ one, 104 * one)
    torch.testing.assert_close(hessian(problem)[0], (8 + 40 + 48 * 3) * one)


def test_what_holds_no_tensor_is_refused():
    for output in (torch.ones(1), {"a": [None, 3]}, lambda: None):
        stuck = Problem(Heads(lambda a, b, c, o=output: o).double(), data=_data(), loss=lambda out, t: t.sum())
        with pytest.raises(ComputeError, match="no tensor that depends on a trainable parameter was found") as raised:
            GaussNewtonOperator(stuck) @ torch.ones(stuck.n_parameters, dtype=D)
        assert raised.value.hint.startswith("--operator hessian, or a model that returns tensors in ")


def test_a_batch_without_a_target_is_refused():
    alone = Problem(Heads(lambda a, b, c: a).double(), data=[{"x": _data()[0][0]}], loss="mse")
    with pytest.raises(LoadError, match="the batch has no target") as raised:
        GaussNewtonOperator(alone) @ torch.ones(alone.n_parameters, dtype=D)
    assert raised.value.hint == "--operator hessian"


def test_an_output_that_is_a_step_has_no_slope():
    """Signs of one head weigh the other in the loss: J'BJ is that of constant weights, for any number of vectors."""

    def loss(output, target):
        a, b = output
        return (a * (2 + b)).square().sum(1).mean()

    def fixed(output, target):
        return (output * (2 + target)).square().sum(1).mean()

    signs = [(x, Heads(lambda a, b, c: b).double()(x).sign().detach()) for x, _ in _data()]
    stepped = Problem(Heads(lambda a, b, c: (a, b.sign())).double(), data=_data(), loss=loss)
    weighted = Problem(Heads(lambda a, b, c: a).double(), data=signs, loss=fixed)
    some = torch.linspace(-1, 1, 3 * stepped.n_parameters, dtype=D).view(-1, 3).cos()
    expected = GaussNewtonOperator(weighted) @ some
    assert float(expected.norm()) > 1
    torch.testing.assert_close(GaussNewtonOperator(stepped) @ some, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(GaussNewtonOperator(stepped) @ some[:, 0], expected[:, 0], rtol=1e-9, atol=1e-12)


def test_circles_and_constants_are_left_as_they_are():
    z = torch.ones(2, requires_grad=True)
    circle: dict[str, Any] = {"z": z, "no": torch.zeros(2)}
    circle["self"] = circle
    tensors, build = structure.flatten(circle)
    again = build([torch.zeros(2)])
    assert len(tensors) == 1
    assert again["no"] is circle["no"]
    assert again["self"] is circle  # and not copied without end
    assert len(structure.flatten([z, z, {"x": z}])[0]) == 3


@pytest.mark.parametrize("form", ["tuple", "model output", "dataclass"])
def test_empirical_fisher_slices_every_output(form):
    if form == "model output":
        pytest.importorskip("transformers")
    wrap, unwrap = STRUCTURES[form]

    def loss(output, target):
        a, b, _ = unwrap(output)
        return 0.5 * ((target - a) ** 2 * torch.exp(-b) + b).mean()

    def by_sample(a, b, c):
        return wrap(a, b, c.expand(len(a)))

    problem = Problem(Heads(by_sample).double(), data=_data(), loss=loss)
    total = torch.zeros(problem.n_parameters, problem.n_parameters, dtype=D)
    for x, y in _data():
        for i in range(len(x)):
            value = loss(problem.model(x[i : i + 1]), y[i : i + 1])
            parts = torch.autograd.grad(value, problem.parameters, materialize_grads=True)
            g = torch.cat([part.reshape(-1) for part in parts])
            total += torch.outer(g, g) / 7
    unit = torch.eye(problem.n_parameters, dtype=D)
    torch.testing.assert_close(FisherOperator(problem, empirical=True) @ unit, total, rtol=1e-9, atol=1e-12)


def test_empirical_fisher_is_refused_where_samples_have_no_rows_or_no_losses_of_their_own():
    cases = {
        "one row per sample": _problem("tuple", "gaussian"),  # whose third output is one number for all samples
        "no gradients of their own": Problem(
            Heads(lambda a, b, c: a).double(), data=_data(), loss=lambda a, t: (a - t).square().mean() + a.mean() ** 2
        ),
        r"reduction='sum'": Problem(
            Heads(lambda a, b, c: a).double(), data=_data(), loss=lambda a, t: (a - t).square().sum()
        ),
    }
    for said, problem in cases.items():
        with pytest.raises(SpecError, match=said):
            FisherOperator(problem, empirical=True) @ torch.ones(problem.n_parameters, dtype=D)


def _without_scalar(name):
    loss = LOSSES[name]
    return Problem(
        Heads(lambda a, b, c: {"a": a, "b": b}).double(),
        data=_data(),
        loss=lambda out, t: loss(out["a"], out["b"], torch.tensor(0.3, dtype=D), t),
    )


@pytest.mark.parametrize("name", ["gaussian", "cosine", "flow"])
def test_blocks_of_two_outputs_from_pairs_of_samples(name):
    problem = _without_scalar(name)
    operator, hessian_operator = GaussNewtonOperator(problem), HessianOperator(problem)
    space = exact.neuron_space(hessian_operator)
    outputs, grams = block_norms.output_space(space, operator, 1e-8), block_norms.sample_products(space)
    count = len(space.layers)
    found = torch.zeros(count, count, dtype=D)
    for lower in range(count):
        found[lower, lower:] = block_norms.layer_blocks(space, outputs, grams, lower).squares[1]
    G = operator @ torch.eye(problem.n_parameters, dtype=D)
    places = [slice(layer.start, layer.stop) for layer in problem.layer_slices]
    expected = torch.stack([torch.stack([G[row, m].square().sum() for m in places]) for row in places])
    torch.testing.assert_close(found, expected.triu(), rtol=1e-9, atol=1e-12)


def test_pairs_of_samples_refuse_a_loss_that_mixes_samples():
    """exp(sum over the batch) has a dense second derivative between samples."""
    problem = Problem(
        Heads(lambda a, b, c: (a, b)).double(),
        data=_data(),
        loss=lambda out, t: out[0].mean().exp() + out[1].sum() ** 2,
    )
    space = NeuronSpace(problem)
    with pytest.raises(NotInNeuronSpaceError, match="products differ"):
        block_norms.output_space(space, GaussNewtonOperator(problem), 1e-8)


@pytest.mark.parametrize("form", ["tuple", "model output"])
def test_blocks_add_up(form):
    if form == "model output":
        pytest.importorskip("transformers")
    H, G, R = _oracle("gaussian")
    found = blocks(_problem(form, "gaussian"))
    for name, matrix in (("norm", H), ("gauss_newton_norm", G), ("residual_norm", R)):
        assert getattr(found, name) == pytest.approx(float(matrix.norm()), rel=1e-9)
