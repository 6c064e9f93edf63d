"""A loss is known because it is one of ours or torch's, and never because of what it is called."""

import functools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.losses.averages import of_loss
from hessdiag.problem.losses.loss import NAMED, resolve
from hessdiag.problem.problem import Problem


class SquaredToo(nn.MSELoss):
    """A subclass with a forward pass of its own."""

    def forward(self, output, target):
        return (output - target).pow(4).mean()


class StillSquared(nn.MSELoss):
    """A subclass that computes what torch computes."""


def _hooked():
    loss = nn.MSELoss()
    loss.register_forward_hook(lambda module, args, value: value**2)
    return loss


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("nll", "nll"),
        (nn.CrossEntropyLoss(), "ce"),
        (F.cross_entropy, "ce"),
        (functools.partial(F.cross_entropy, ignore_index=0, reduction="sum"), "ce"),
        (F.nll_loss, "nll"),
        (StillSquared(), "mse"),
        (functools.partial(F.huber_loss, delta=0.5), "huber"),
        (nn.BCELoss(), "bce_probabilities"),
        (SquaredToo(), None),
        (_hooked(), None),
        (functools.partial(F.mse_loss, size_average=False), None),
        (functools.partial(nn.MSELoss()), None),
        (lambda output, target: F.cross_entropy(output, target), None),
        (F.gaussian_nll_loss, None),
    ],
)
def test_kinds(loss, kind):
    assert resolve(loss).kind == kind


@pytest.mark.parametrize("name", ["ce", "nll", "mse", "bce"])
def test_a_function_of_a_known_name_is_the_users_own(name):
    """Named and anonymous, it has the same Hessian and the same Gauss-Newton matrix, and no Fisher matrix."""

    def own(output, target):
        return torch.cosh(output[..., 0] - output[..., 1] * target).mean()

    anonymous = functools.partial(own)
    own.__name__ = own.__qualname__ = name
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    data = [(torch.randn(5, 3).double(), torch.rand(5).double())]
    called, other = (Problem(model, data=data, loss=loss) for loss in (own, anonymous))
    assert called.loss_name == name
    assert (called.criterion.kind, called.criterion.is_convex, called.criterion.is_likelihood) == (None, False, False)
    assert torch.equal(hessian(called), hessian(other))
    unit = torch.eye(called.n_parameters, dtype=torch.float64)
    assert torch.equal(GaussNewtonOperator(called) @ unit, GaussNewtonOperator(other) @ unit)
    with pytest.raises(SpecError, match="not known to be a likelihood"):
        FisherOperator(called)


def test_a_function_of_a_known_name_receives_the_whole_output():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.spread = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return self.mean(x), self.spread(x)

    def mse(output, target):
        return ((output[0] - target) ** 2 + output[1] ** 2).mean()

    problem = Problem(TwoHeads().double(), data=[(torch.randn(4, 2).double(), torch.randn(4, 1).double())], loss=mse)
    H = hessian(problem)
    torch.testing.assert_close(H[:3, :3], H[3:, 3:])  # both heads are linear, both squared
    assert float(H[3:, 3:].norm()) > 0.1


@pytest.mark.parametrize(
    ("loss", "likelihood", "convex"),
    [
        (nn.CrossEntropyLoss(ignore_index=1, reduction="sum"), True, True),
        (nn.CrossEntropyLoss(label_smoothing=0.1), False, True),
        (functools.partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0])), False, True),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, -2.0])), False, False),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0])), False, True),
        (F.binary_cross_entropy_with_logits, True, True),
        (nn.BCELoss(), False, True),
        (nn.PoissonNLLLoss(), True, True),
        (nn.PoissonNLLLoss(log_input=False), False, True),
        (nn.HuberLoss(), False, True),
        (nn.CosineEmbeddingLoss(), False, False),
        (lambda output, target: (output - target).square().mean(), False, False),
    ],
)
def test_what_is_known_of_a_loss(loss, likelihood, convex):
    found = resolve(loss)
    assert (found.is_likelihood, found.is_convex) == (likelihood, convex)


def test_ours_are_all_likelihoods_of_one_tensor():
    for loss in NAMED.values():
        assert (loss.is_likelihood, loss.is_convex, loss.of_tensor) == (True, True, True)
        assert loss.received((torch.ones(2), None)) is not None
    pair = (torch.ones(2), torch.ones(3))
    assert resolve(F.mse_loss).received(pair) is pair


def test_settings_of_a_partial_are_those_of_the_criterion():
    weight = torch.tensor([1.0, 2.0, 4.0])
    partial, module = (
        resolve(functools.partial(F.cross_entropy, weight=weight, ignore_index=2)),
        resolve(nn.CrossEntropyLoss(weight, ignore_index=2)),
    )
    assert partial.options.keys() == module.options.keys()
    target = torch.tensor([0, 1, 1, 2])
    counts = [of_loss(loss, (None, target)).count for loss in (partial, module)]
    assert counts == [5.0, 5.0]
    assert partial.reduction == module.reduction == "mean"
    assert resolve(functools.partial(F.kl_div, reduction="batchmean")).reduction == "mean"


def test_a_loss_without_reduction_is_refused():
    for loss in (nn.MSELoss(reduction="none"), functools.partial(F.mse_loss, reduction="none")):
        with pytest.raises(LoadError, match="reduction='none'"):
            resolve(loss)


def test_the_report_says_whose_function_it_is():
    def nll(output, target):
        return (output - target).abs().mean()

    assert resolve(nll).definition.startswith("your own nll")
    assert resolve(F.nll_loss).definition.startswith("torch's nll_loss")


def test_the_value_is_that_of_all_batches_in_their_weights():
    model = nn.Linear(2, 1).double()
    data = [(torch.randn(n, 2).double(), torch.randn(n, 1).double()) for n in (1, 4)]
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    problem = Problem(model, data=data, loss="mse")
    assert problem.value() == pytest.approx(float(nn.functional.mse_loss(model(x), y)), rel=1e-12)
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("given", [{"loss": "mse"}, {"objective": lambda model, batch: model(batch[0]).square().sum()}])
def test_the_objective_is_public(given):
    model, batch = nn.Linear(2, 1).double(), (torch.randn(3, 2).double(), torch.randn(3, 1).double())
    problem = Problem(model, data=[batch], **given)
    assert float(problem.objective_function(model, batch)) == pytest.approx(problem.value(), rel=1e-12)
    assert (problem.loss_of_output is None) == ("objective" in given)
    if problem.loss_of_output is not None:
        assert float(problem.loss_of_output.function(model(batch[0]), batch[1])) == pytest.approx(problem.value())
