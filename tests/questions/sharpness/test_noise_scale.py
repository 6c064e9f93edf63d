"""The gradient noise scale: closed form of linear regression, by hand, and data that cannot be cut."""

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag import HessianOperator, Problem
from hessdiag.questions.sharpness import noise as room
from hessdiag.questions.sharpness.noise import estimated, noise, pieces

D = torch.float64


def halved(output, target):
    return (output - target).square().mean() / 2


def regression(n=6000, sigma=0.7, seed=0, batches=1, loss=halved, reduction=None):
    """y = x'w* + noise with x ~ N(0, C), at another w; with the closed forms of scale and proxy."""
    torch.manual_seed(seed)
    c = torch.tensor([2.0, 1.0, 0.5, 0.25], dtype=D)
    x = torch.randn(n, 4, dtype=D) * c.sqrt()
    star, here = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=D), torch.tensor([0.2, 0.3, 1.0, 1.0], dtype=D)
    y = x @ star + sigma * torch.randn(n, dtype=D)
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(here[None])
    data = list(zip(x.chunk(batches), y[:, None].chunk(batches), strict=True))
    delta = here - star
    gradient, residual = c * delta, float((c * delta.square()).sum()) + sigma**2
    covariance = residual * torch.diag(c) + torch.outer(gradient, gradient)  # of (x'delta - noise) x
    scale = float((c * covariance.diagonal()).sum() / (c * gradient.square()).sum())
    return (
        Problem(model, data=data, loss=loss, reduction=reduction),
        scale,
        float(covariance.trace() / gradient.square().sum()),
    )


def of(problem, seed=0):
    return noise(problem, HessianOperator(problem, check=False), seed)


def test_linear_regression_has_its_closed_form_and_errors_that_are_true():
    """Over 24 data sets: no bias beyond the scatter, and a jackknife that says how much they scatter."""
    found = []
    for seed in range(24):
        problem, scale, proxy = regression(n=640, seed=seed)
        found.append(of(problem))
    assert scale == pytest.approx(3.97124, abs=1e-4)
    assert proxy == pytest.approx(4.28714, abs=1e-4)
    for of_each, errors, true in (
        ([one.scale for one in found], [one.scale_stderr for one in found], scale),
        ([one.simple for one in found], [one.simple_stderr for one in found], proxy),
    ):
        scatter = np.std(of_each, ddof=1)
        assert abs(np.mean(of_each) - true) < 3 * scatter / np.sqrt(len(found))
        assert 0.75 < np.sqrt(np.mean(np.square(errors))) / scatter < 1.35
        assert np.mean(np.abs(np.subtract(of_each, true)) < 2 * np.array(errors)) > 0.8


def test_it_is_the_estimate_by_hand():
    problem, _, _ = regression(n=80)
    parts, samples, _ = pieces(problem.data, 3)
    assert (len(parts), samples) == (16, 5)
    w = problem.model.weight.detach()[0].numpy()
    every = [batch[0].numpy() for (batch,) in parts]
    gradients = np.stack([x.T @ (x @ w - y.numpy()[:, 0]) / 5 for x, ((_, y),) in zip(every, parts, strict=True)])
    x = problem.data[0][0].numpy()
    products = gradients @ (x.T @ x / 80) @ gradients.T

    def ratio(g):
        k = len(g)
        own, cross = np.trace(g) / k, (g.sum() - np.trace(g)) / k / (k - 1)
        return 5 * (own / cross - 1)

    left = np.array([ratio(np.delete(np.delete(products, k, 0), k, 1)) for k in range(16)])
    found = of(problem, 3)
    assert found.scale == pytest.approx(ratio(products), rel=1e-9)
    assert found.scale_stderr == pytest.approx(np.sqrt(15 / 16 * np.square(left - left.mean()).sum()), rel=1e-9)


def test_a_sum_over_samples_has_the_noise_of_the_mean():
    mean, summed = (
        regression(n=80)[0],
        regression(n=80, loss=lambda o, t: (o - t).square().sum() / 2, reduction="sum")[0],
    )
    assert of(summed).scale == pytest.approx(of(mean).scale, rel=1e-9)


@pytest.mark.parametrize(
    ("batches", "parts", "samples"), [(2, 16, 237), (3, 18, 211), (16, 16, 230), (19, 16, 200), (40, 16, 190)]
)
def test_several_batches_are_cut_or_are_parts(batches, parts, samples):
    problem, scale, _ = regression(n=3800, batches=batches)
    found = of(problem)
    assert (found.pieces, found.samples) == (parts, samples)
    assert abs(found.scale - scale) < 3 * found.scale_stderr


def test_parts_are_of_samples_that_seeds_choose_and_not_of_neighbours():
    """Sorted by their targets: parts of neighbours would differ far more than samples do."""
    problem, scale, _ = regression()
    ((x, y),) = problem.data
    order = y[:, 0].argsort()
    found = of(problem.like(data=[(x[order], y[order])]))
    assert abs(found.scale - scale) < 3 * found.scale_stderr
    batch = torch.arange(64.0)
    (first, *_), (other, *_) = (pieces([(batch, batch)], seed).each for seed in (0, 1))
    assert not torch.equal(first[0][0], other[0][0])
    every = torch.cat([part[0] for (part,) in pieces([(batch, batch)], 0).each])
    assert torch.equal(every.sort().values, batch)


def test_a_denominator_that_may_be_zero_gives_a_bound():
    """At the minimum G is zero, and no data are enough: the scale is above what they could tell."""
    problem, _, _ = regression(n=400)
    x, y = problem.data[0]
    with torch.no_grad():
        problem.model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    found = of(problem)
    assert found.scale is None
    assert found.why == room.LOST
    assert found.at_least is None or found.at_least > 20


def test_the_bound_is_with_the_denominator_two_errors_larger():
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(8, 30, generator=generator, dtype=D)
    products = g @ g.T
    found = estimated(products, 5)
    assert found.value is None
    n, trace = 8, float(products.trace())
    cross = lambda p, k: float((p.sum() - p.trace()) / (k * (k - 1)))  # noqa: E731
    keep = [[j for j in range(8) if j != k] for k in range(8)]
    left = np.array([cross(products[rows][:, rows], 7) for rows in keep])
    error = np.sqrt(7 / 8 * np.square(left - left.mean()).sum())
    most = cross(products, n) + 2 * error
    assert found.at_least == pytest.approx(5 * (trace / n / most - 1))


def test_data_that_cannot_be_cut_or_do_not_add_up_say_so():
    model = nn.Linear(2, 1).double()
    few = Problem(model, data=[(torch.randn(3, 2).double(), torch.randn(3, 1).double())], loss="mse")
    assert of(few).why == room.UNCUT
    whole = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    assert of(whole).why == room.UNCUT
    x = torch.randn(64, 2).double()
    together = Problem(model, data=[(x, x)], objective=lambda model, batch: model(batch[0]).mean().square())
    assert of(together).why == room.UNLIKE
