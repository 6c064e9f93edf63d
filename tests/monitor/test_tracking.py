"""The largest eigenvalue of a matrix that changes, from few products: against LAPACK, and where old vectors mislead."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.linalg.krylov import KrylovSpace
from hessdiag.monitor import tracking
from hessdiag.monitor.tracking import track
from hessdiag.optimizers.preconditioning import preconditioning

N = 120
NO_SLOPE = torch.zeros(N, dtype=torch.float64)
EPS = 2e-16


def symmetric(values, seed=0):
    """A matrix with these eigenvalues, the rest of them small, and its eigenvectors."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((N, N)))[0]
    rest = rng.uniform(-0.5, 0.5, N - len(values))
    return torch.tensor((Q * np.concatenate([values, rest])) @ Q.T), torch.tensor(Q)


def test_a_cold_search():
    A, _ = symmetric([9.0, 4.0, 3.0, -6.0])
    found = track(A, None, NO_SLOPE, 0, EPS)
    assert found.converged
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(A)[-1]), rel=0.01)
    residual = float((A @ found.top - found.value * found.top).norm())
    assert found.residual == pytest.approx(residual, rel=1e-6)  # the recurrence's is the true one


def test_it_goes_on_from_what_was_found():
    A, Q = symmetric([9.0, 7.5, 4.0, -3.0])
    rng = np.random.default_rng(1)
    before, products = track(A, None, NO_SLOPE, 0, EPS), []
    for look in range(1, 15):
        noise = rng.standard_normal((N, N)) * 0.02
        A = A + torch.tensor(noise + noise.T)
        A = A + 0.3 * torch.outer(Q[:, 0], Q[:, 0])
        before = track(A, before, NO_SLOPE, look, EPS)
        products.append(before.products)
        assert before.converged
        assert before.value == pytest.approx(float(torch.linalg.eigvalsh(A)[-1]), rel=0.02)
    assert max(products) <= 5
    assert np.mean(products) < 4.5


def test_a_new_top_eigenvector_is_found_or_said_to_be_missed():
    A, Q = symmetric([9.0, 5.0, 4.0])
    before = track(A, None, NO_SLOPE, 0, EPS)
    swapped = A + 9 * torch.outer(Q[:, 5], Q[:, 5])  # orthogonal to all that was known
    true = float(torch.linalg.eigvalsh(swapped)[-1])
    missed = track(swapped, before, NO_SLOPE, 1, EPS)
    again = track(swapped, missed, NO_SLOPE, 2, EPS)
    assert not missed.converged or missed.value == pytest.approx(true, rel=0.02)
    assert again.value == pytest.approx(true, rel=0.02)
    assert again.converged
    along = track(swapped, before, Q[:, 5], 1, EPS)  # the gradient shows it
    assert along.converged
    assert along.value == pytest.approx(true, rel=0.02)


def test_the_old_vector_alone_would_miss_it(monkeypatch):
    A, Q = symmetric([9.0, 5.0, 4.0])
    before = track(A, None, NO_SLOPE, 0, EPS)
    monkeypatch.setattr(tracking, "NOISE", 0.0)
    exact = replace(before, top=Q[:, 0])
    missed = track(A + 9 * torch.outer(Q[:, 5], Q[:, 5]), exact, NO_SLOPE, 1, EPS)
    assert missed.value == pytest.approx(9.0)
    assert missed.converged  # which is why noise goes beside it


def test_a_search_that_did_not_converge_does_not_bind_the_next():
    rng = np.random.default_rng(0)
    A = torch.tensor(np.diag(np.linspace(0.9, 1.0, N)) + 1e-3 * np.diag(rng.standard_normal(N)))
    A = A - 0.95 * torch.eye(N)  # both ends crowded: nothing stands out
    first = track(A, None, NO_SLOPE, 0, EPS)
    assert first.products > 5
    second = track(A, first, NO_SLOPE, 1, EPS)
    assert second.products <= (5 if first.converged else tracking.COLD)
    assert second.value <= float(torch.linalg.eigvalsh(A)[-1]) + 1e-12


def test_memory_is_that_of_few_vectors(monkeypatch):
    sizes = []

    class Watched(KrylovSpace):
        def __init__(self, operator, capacity, *args, **kwargs):
            sizes.append(capacity)
            super().__init__(operator, capacity, *args, **kwargs)

    monkeypatch.setattr(tracking, "KrylovSpace", Watched)
    A = torch.diag(torch.linspace(-1, 1, N, dtype=torch.float64))
    found = track(A, None, NO_SLOPE, 0, EPS)
    assert found.products > tracking.WINDOW  # it was restarted
    assert sizes == [tracking.WINDOW]


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_small_matrices(n):
    A = torch.diag(torch.arange(n, dtype=torch.float64) - 1)
    slope = torch.ones(n, dtype=torch.float64)
    first = track(A, None, slope, 0, EPS)
    assert first.value == pytest.approx(n - 2, abs=1e-9 if n < 5 else 0.05 * n)
    assert track(A, first, slope, 1, EPS).products <= 5


def test_a_space_starts_where_it_is_told():
    A, _ = symmetric([9.0])
    start = torch.randn(1, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    space = KrylovSpace(A, 10, 1, 1, 0, start=3 * start)
    space.grow()
    value = float(space.ritz()[0])
    assert value == pytest.approx(float((start @ A @ start.T) / (start @ start.T)))


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.1), lambda p: torch.optim.Adam(p, lr=2e-3)])
def test_along_training_it_is_that_of_eigs(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    x, y = torch.randn(64, 10), torch.randint(4, (64,))
    optimizer = make(model.parameters())
    problem = hessdiag.Problem(model, data=[(x, y)], loss="ce")
    quantities = ("loss", "lambda_max", "sharpness", "negative_curvature", "trace")
    monitor = hessdiag.Monitor(problem, 10, None, optimizer=optimizer, quantities=quantities)
    off, warm, traces, before = [], [], [], None
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        record = monitor.step()
        if record is None:
            continue
        fresh = hessdiag.Problem(model, data=[(x, y)], loss="ce")
        values = torch.linalg.eigvalsh(hessdiag.hessian(fresh))
        reading = record.readings["lambda_max"]
        off.append(abs(reading.value / float(values[-1]) - 1))
        warm += [reading.products] if before is not None and before.converged else []
        before = reading
        metric = preconditioning(fresh, optimizer)
        mine = record.readings["sharpness"]
        assert mine.threshold == pytest.approx(metric.threshold / metric.lr)
        if mine.converged:
            diagonal = metric.metric(fresh).double().rsqrt()
            seen = diagonal[:, None] * hessdiag.hessian(fresh).double() * diagonal
            assert mine.value == pytest.approx(float(torch.linalg.eigvalsh(seen)[-1]) / mine.threshold, rel=0.05)
        assert record.value("loss") == pytest.approx(fresh.value())
        lowest = record.readings["negative_curvature"]
        assert float(values[0]) - 1e-6 <= lowest.value < 0
        assert lowest.proven
        traces.append((record.value("trace") - float(values.sum())) / record.readings["trace"].stderr)
    assert max(warm) <= 5
    assert np.median(off) < 0.01
    assert np.mean(np.array(off) < 0.02) >= 0.8
    assert 0.2 < np.sqrt(np.mean(np.square(traces))) < 2.5  # in standard errors
