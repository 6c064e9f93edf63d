"""Thresholds against torch's optimizers themselves, on quadratics with a preconditioner that stands still."""

import math

import pytest
import torch

from hessdiag.theory.stability import FAMILIES, threshold, why_not

STILL = 1 - 2.0**-50  # of second moments that are not to move
P = 0.7  # what the adaptive ones divide by


def second(value):
    return {"step": torch.tensor(1e17), "exp_avg": torch.zeros(1).double(), **value}


ADAM = second({"exp_avg_sq": torch.full((1,), P**2).double()})
CASES = {  # class, its settings, state, what `threshold` is told, what it divides by
    "sgd": (torch.optim.SGD, {}, {}, {}, 1.0),
    "coupled decay": (torch.optim.SGD, {"weight_decay": 0.25}, {}, {}, 1.0),
    "heavy ball": (torch.optim.SGD, {"momentum": 0.9}, {}, {"momentum": 0.9}, 1.0),
    "dampened": (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.4}, {}, {"momentum": 0.8, "dampening": 0.4}, 1.0),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, {}, {"momentum": 0.9, "nesterov": True}, 1.0),
    "adam": (torch.optim.Adam, {"betas": (0.9, STILL), "eps": 0.0}, ADAM, {"beta1": 0.9}, P),
    "adam, coupled": (
        torch.optim.Adam, {"betas": (0.9, STILL), "eps": 0.0, "weight_decay": 0.2}, ADAM, {"beta1": 0.9}, P
    ),
    "adamw": (
        torch.optim.AdamW,
        {"betas": (0.8, STILL), "eps": 0.0, "weight_decay": 0.5},
        ADAM,
        {"beta1": 0.8, "decay": 0.5},
        P,
    ),
    "nadam": (
        torch.optim.NAdam,
        {"betas": (0.9, STILL), "eps": 0.0},
        {**ADAM, "mu_product": torch.tensor(0.0)},
        {"beta1": 0.9},
        P,
    ),
    "nadam, early": (  # its look-ahead stands at one value
        torch.optim.NAdam,
        {"betas": (0.9, STILL), "eps": 0.0, "momentum_decay": 0.0},
        {**ADAM, "mu_product": torch.tensor(0.0)},
        {"beta1": 0.9, "look_ahead": 0.45},
        P,
    ),
    "adamax": (
        torch.optim.Adamax, {"betas": (0.9, STILL)}, second({"exp_inf": torch.full((1,), P).double()}), {"beta1": 0.9}, P
    ),
    "rmsprop": (
        torch.optim.RMSprop,
        {"alpha": STILL, "momentum": 0.6, "eps": 0.0},
        {"step": torch.tensor(1.0), "square_avg": torch.full((1,), P**2).double(), "momentum_buffer": torch.zeros(1).double()},
        {"momentum": 0.6},
        P,
    ),
    "adadelta": (
        torch.optim.Adadelta,
        {"rho": STILL, "eps": 0.0},
        {"step": torch.tensor(1.0), "square_avg": torch.full((1,), P**2).double(), "acc_delta": torch.ones(1).double()},
        {},
        P,
    ),
    "adagrad": (
        torch.optim.Adagrad, {"eps": 0.0}, {"step": torch.tensor(1.0), "sum": torch.full((1,), 1e16).double()}, {}, 1e8
    ),
}  # fmt: skip


def amplitude(kind, settings, state, lr, curvature):
    """How far from the minimum of a quadratic, late over early; on a logarithmic scale."""
    w = torch.nn.Parameter(torch.full((1,), 1e-12).double())
    optimizer = kind([w], lr=lr, foreach=False, **settings)
    if state:
        optimizer.state[w] = {key: value.clone() for key, value in state.items()}
    seen = []
    for _ in range(400):
        w.grad = curvature * w.detach()
        optimizer.step()
        seen.append(abs(w.item()))
    assert all(map(math.isfinite, seen))
    return math.log(max(seen[-50:]) / max(seen[100:150]))


@pytest.mark.parametrize("case", CASES)
def test_steps_grow_just_above_and_shrink_just_below(case):
    kind, settings, state, told, divides = CASES[case]
    name = kind.__name__.lower()
    lr = 1.0 if name != "adagrad" else divides
    limit = threshold(name, **told)
    curvature = limit * divides / lr - (0 if kind is torch.optim.AdamW else settings.get("weight_decay", 0.0))
    assert amplitude(kind, settings, state, lr, 0.999 * curvature) < -0.1
    assert amplitude(kind, settings, state, lr, 1.001 * curvature) > 0.1


def test_a_coupled_decay_is_curvature():
    assert amplitude(torch.optim.SGD, {"weight_decay": 0.25}, {}, 1.0, 1.74) < 0
    assert amplitude(torch.optim.SGD, {"weight_decay": 0.25}, {}, 1.0, 1.76) > 0


def test_the_constants_of_the_papers():
    assert threshold("sgd") == 2
    assert threshold("sgd", momentum=0.9) == pytest.approx(3.8, rel=1e-15)
    assert threshold("adam", beta1=0.9) == pytest.approx(38, rel=1e-14)
    assert threshold("adamw", beta1=0.9, decay=0.1) == pytest.approx(1.9 * 19, rel=1e-14)
    assert threshold("radam", beta1=0.5) == pytest.approx(6, rel=1e-14)


def test_others_have_none_and_it_is_said_why():
    for kind in ("muon", "lion", "soap", "lbfgs", "sgdp"):
        assert threshold(kind) is None
        assert why_not(kind)
    assert all(threshold(kind) > 0 and not why_not(kind) for kind in FAMILIES)


@pytest.mark.parametrize("told", [{"momentum": 1.0}, {"beta1": -0.1}, {"decay": 2.0}, {"dampening": 1.5}])
def test_what_is_no_momentum_is_refused(told):
    with pytest.raises(ValueError, match="momenta"):
        threshold("sgd", **told)
