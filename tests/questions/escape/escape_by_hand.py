"""Results of races made by hand: the numbers of a task of the reference, in round figures."""

import math
from dataclasses import replace

from hessdiag.questions.common.result import ModelSubject
from hessdiag.questions.escape.result import (
    Contender,
    Escape,
    Landscape,
    Milestone,
    Plateau,
    Prediction,
    Region,
    Run,
    Spent,
)

SUBJECT = ModelSubject(
    model="MLP",
    spec="builtin:relu_mlp",
    device="cpu",
    dtype="float64",
    seed=0,
    parameters=8192,
    parameters_total=8192,
    samples=512,
    input_shape=[16],
    outputs=1,
    loss="mse",
    reduction="mean",
)
EVERY = 10  # backpropagations between two looks
SHARE = 0.25  # of the samples in a batch


def spent(steps, products=0):
    """What so many steps took."""
    gradients = steps
    return Spent(
        steps=steps,
        gradients=gradients,
        products=products,
        evaluations=steps,
        backprops=gradients + products,
        epochs=steps * SHARE,
        sample_passes=(gradients + products) * SHARE,
        seconds=0.002 * (gradients + 2.3 * products),
    )


def plateau(seed=0, **changes):
    """One of a network by Xavier's initialization."""
    usual = Plateau(
        seed=seed,
        loss=0.499,
        constant_loss=0.5,
        reference=0.499,
        gradient_norm=3.1e-6 * (seed + 1),
        gradient_median=4.4e-9,
        gradient_zeros=0.0,
        lowest=-5.6e-5,
        highest=6.1e-5,
        present=True,
        says="the loss is that of a constant, and a step along the gradient would move it by 1e-9 of itself",
    )
    return replace(usual, **changes)


def run(optimizer, seed=0, escape=None, budget=400, products=0, lr=None, **changes):
    """A run that escapes after so many steps, or stays; with so many products a step."""
    each = 1 + products
    steps = budget // each
    looks = range(0, steps + 1, max(EVERY // each, 1))
    rate = 0.0 if escape is None else math.log(1 / 0.9) / escape
    losses = tuple(0.499 * math.exp(-min(rate * look, 3.0)) for look in looks)
    at = tuple(spent(look, products * look) for look in looks)
    settings = {} if lr is None else {"lr": lr}
    out = None if escape is None else spent(escape, products * escape)
    half = None if escape is None else round(math.log(2) / rate)
    usual = Run(
        optimizer=optimizer,
        seed=seed,
        settings=settings,
        outcome="stuck" if escape is None else "escaped",
        escaped=out is not None,
        steps=out and out.steps,
        backprops=out and out.backprops,
        epochs=out and out.epochs,
        sample_passes=out and out.sample_passes,
        seconds=out and out.seconds,
        milestones=() if half is None or half > steps else (Milestone(level=0.5, spent=spent(half, products * half)),),
        spent=spent(steps, products * steps),
        loss=losses,
        at=at,
        final_loss=losses[-1],
        best_loss=min(losses),
    )
    return replace(usual, **changes)


def region(steps, each, untrusted=0.2):
    """How a trust region went."""
    return Region(
        backprops=tuple(float(each * step) for step in range(1, steps + 1)),
        radius=tuple(0.1 * 1.5 ** min(step, 12) for step in range(steps)),
        rho=tuple(1.0 - 0.9 * step / steps for step in range(steps)),
        exits={"boundary": steps - 3, "negative curvature": 3},
        rejected=steps // 10,
        untrusted=untrusted,
    )


GROWTH = Prediction(law="width", typical=31.0, low=14.0, high=137.0, says="S*width = 0.5 at lr 1e-3 and width 16")
FLOOR = Prediction(law="floor", typical=4.6e9, low=2.5e9, high=2.9e10, says="2.6/(lr |lambda_min|)")


def contender(optimizer, runs, kind="first", lr=None, **changes):
    """An optimizer with its runs."""
    own = [one for one in runs if one.optimizer == optimizer]
    counts = sorted(math.inf if one.backprops is None else one.backprops for one in own)
    middle = counts[len(counts) // 2] if counts else math.inf
    usual = Contender(
        optimizer=optimizer,
        kind=kind,
        settings={} if lr is None else {"lr": lr},
        searched=() if lr is None else (0.1, 0.03, 0.01),
        search=spent(0) if lr is None else spent(600),
        escaped=sum(one.escaped for one in own),
        runs=len(own),
        backprops=None if math.isinf(middle) else middle,
    )
    return replace(usual, **changes)


def result(seeds=3, **changes):
    """A race of five on some networks: two trust regions, RMSprop, Muon below its floor, and gradient descent."""
    over = range(seeds)
    quarter = "eps 1e-7 is above |G| = 3e-14: acts as SGD with step 4.85e9 lr"
    runs = (
        *(run("tr-rmsprop", s, 6 + s, products=2, region=region(130, 3)) for s in over),
        *(run("tr-uniform", s, 9 + s if s < 2 else None, products=2, region=region(130, 3, 0.81)) for s in over),
        *(run("rmsprop", s, 20 + 3 * s, lr=1e-3, predicted=GROWTH) for s in over),
        *(run("muon", s, None, lr=0.02, notes=(quarter,)) for s in over),
        *(run("sgd", s, None, lr=0.1, predicted=FLOOR) for s in over),
    )
    contenders = (
        contender("tr-rmsprop", runs, "second"),
        contender("rmsprop", runs, lr=1e-3),
        contender(
            "tr-uniform", runs, "second", notes=("rho below 1/4 in 81 % of steps: the model is not to be trusted",)
        ),
        contender("muon", runs, lr=0.02, floor=2e-10),
        contender("sgd", runs, lr=0.1),
    )
    usual = Escape(
        problem=SUBJECT,
        threshold=0.9,
        budget=400,
        escaped=sum(one.escaped for one in runs) / len(runs),
        plateaus=tuple(plateau(seed) for seed in over),
        contenders=contenders,
        runs=runs,
        frozen=("running statistics of 2 BatchNorm layers",),
    )
    return replace(usual, **changes)


def grid(count=21):
    """A saddle's landscape."""
    axis = tuple(round(-1 + 2 * index / (count - 1), 12) for index in range(count))
    loss = tuple(
        tuple(0.499 * math.exp(-0.6 * across + 0.8 * across**2 - 1.4 * up**2) for across in axis) for up in axis
    )
    return Landscape(along_gradient=axis, along_curvature=axis, loss=(*loss[:-1], (None, *loss[-1][1:])))
