"""Condition numbers, effective dimensions and iterations against LAPACK, closed forms and conjugate gradients that run."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.problem import Problem
from hessdiag.questions.precondition import measure, readings
from hessdiag.questions.precondition.kinds import WORDS
from hessdiag.questions.precondition.measure import precondition
from tests.interrupts import ends_after

ACTIVATIONS = (nn.Tanh, nn.GELU, nn.Softplus, nn.Sigmoid)


def network(seed, loss="ce"):
    """A small network with two batches, trained a little."""
    torch.manual_seed(seed)
    width, inputs = 3 + seed % 3, 4 + seed % 4
    layers = [nn.Linear(inputs, width), ACTIVATIONS[seed % 4]()]
    layers += [nn.LayerNorm(width)] if seed % 5 == 4 else []
    model = nn.Sequential(*layers, nn.Linear(width, 3)).double()
    x = torch.randn(20, inputs).double()
    y = torch.randint(3, (20,)) if loss == "ce" else torch.randn(20, 3).double()
    function = nn.functional.cross_entropy if loss == "ce" else nn.functional.mse_loss
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(10 * (seed % 4)):
        optimizer.zero_grad()
        function(model(x), y).backward()
        optimizer.step()
    return Problem(model, data=[(x[:8], y[:8]), (x[8:], y[8:])], loss=loss)


def brute(problem):
    """H and the batches' gradients, (N, N) and (batches, N), by autograd alone."""
    rows, gradients = 0, []
    for weight, (x, y) in zip(problem.batch_weights, problem.data, strict=True):
        value = problem.criterion.function(problem.model(x), y)
        slope = torch.cat([p.flatten() for p in torch.autograd.grad(value, problem.parameters, create_graph=True)])
        gradients.append(slope.detach().numpy())
        whole = [
            torch.autograd.grad(one, problem.parameters, retain_graph=True, materialize_grads=True) for one in slope
        ]
        rows = rows + weight * torch.stack([torch.cat([part.flatten() for part in row]) for row in whole]).numpy()
    return (rows + rows.T) / 2, np.stack(gradients)


def bent(matrix, bend):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(bend(values)) @ vectors.T


def positive(values):
    return np.maximum(values, 0)


def by_hand(problem, H, gradients, bend, shift):
    """The damped system, and each preconditioner that can be written down in a line."""
    n = len(H)
    A = bent(H, bend) + shift * np.eye(n)
    blocks = np.zeros_like(H)
    for layer in problem.layer_slices:
        own = slice(layer.start, layer.stop)
        blocks[own, own] = bent(H[own, own], bend)
    roots = np.sqrt((gradients**2).mean(0)) + 1e-8
    adam = roots * np.linalg.norm(H) / np.linalg.norm(roots)
    found = {"none": np.zeros((n, n)), "diagonal": np.diag(bend(np.diag(H))), "blocks": blocks, "adam": np.diag(adam)}
    return A, {name: P + shift * np.eye(n) for name, P in found.items()}


class Whole:
    """The Hessian by its rows once, for the thousands of products of the sampled way."""

    engine = "rows at hand"

    def __init__(self, operator):
        self.matrix = operator @ torch.eye(operator.shape[0], dtype=operator.dtype)
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def __matmul__(self, vectors):
        return self.matrix @ vectors


def beyond(monkeypatch, steps):
    """All networks count as large."""
    monkeypatch.setattr(measure, "EXACT_UP_TO", 10)
    monkeypatch.setattr(readings, "QUADRATURE_STEPS", steps)
    monkeypatch.setattr(measure, "share", Whole)


@pytest.fixture
def few(monkeypatch):
    """Those that can be written down in a line are measured alone, with little spent on effective dimensions."""
    monkeypatch.setattr(measure, "WORDS", {name: WORDS[name] for name in ("none", "diagonal", "adam", "blocks")})
    return monkeypatch


@pytest.mark.parametrize("seed", range(20))
def test_condition_numbers_against_lapack(few, seed):
    problem = network(seed, "ce" if seed % 2 else "mse")
    found = precondition(problem, damping=1e-3)
    H, gradients = brute(problem)
    shift = 1e-3 * np.abs(np.linalg.eigvalsh(H)).max()
    assert found.shift == pytest.approx(shift, rel=1e-9)
    assert [row.name for row in found.preconditioners] == ["none", "diagonal", "adam", "blocks"]
    for bend, key in ((positive, "condition"), (np.abs, "condition_absolute")):
        A, made = by_hand(problem, H, gradients, bend, shift)
        for name, P in made.items():
            values = scipy.linalg.eigh(A, P, eigvals_only=True)
            assert getattr(found.of(name), key) == pytest.approx(values[-1] / values[0], rel=1e-8), (name, key)
    _, made = by_hand(problem, H, gradients, positive, shift)
    for name, P in made.items():
        values = scipy.linalg.eigh(H, P, eigvals_only=True)
        d = 1e-3 * values[-1]
        expected = sum(value / (value + d) for value in values if value > 0)
        assert found.of(name).effective_dimension == pytest.approx(expected, rel=1e-8)


def iterations(A, P, g, tol):
    """Preconditioned conjugate gradients (Hestenes and Stiefel) until |e|_A <= tol |e_0|_A."""
    truth = np.linalg.solve(A, g)
    s, r = np.zeros_like(g), g.copy()
    z = np.linalg.solve(P, r)
    p = z.copy()
    for k in range(10 * len(g)):
        e = truth - s
        if e @ A @ e <= tol**2 * (truth @ A @ truth):
            return k
        step = (r @ z) / (p @ A @ p)
        s, new = s + step * p, r - step * (A @ p)
        fresh = np.linalg.solve(P, new)
        p = fresh + (new @ fresh) / (r @ z) * p
        r, z = new, fresh
    raise AssertionError("did not converge")


@pytest.mark.parametrize(("seed", "exact"), [(1, True), (3, True), (4, True), (6, True), (1, False), (4, False)])
def test_iterations_are_those_that_conjugate_gradients_take(few, seed, exact):
    problem = network(seed, "ce" if seed % 2 else "mse")
    H, gradients = brute(problem)
    if not exact:
        beyond(few, 2)
    for tol in (1e-2, 1e-4) if exact else (1e-3,):
        found = precondition(problem, damping=3e-3, tol=tol, steps=len(H), probes=2)
        A, made = by_hand(problem, H, gradients, positive, found.shift)
        for name, P in made.items():
            real = iterations(A, P, gradients.T @ problem.batch_weights, tol)
            assert found.of(name).cg_iterations == pytest.approx(real, rel=0.2), name
            assert not found.of(name).cg_unfinished


def test_the_exact_block_inverse_makes_a_block_diagonal_hessian_the_identity():
    """Two layers that do not meet: (w, b) of each in a quartic and an indefinite form of its own."""

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 2).double(), nn.Linear(2, 2).double()

    torch.manual_seed(0)
    forms = [torch.randn(n, n).double() for n in (8, 6)]

    def objective(model, batch):
        vectors = [torch.cat([p.flatten() for p in part.parameters()]) for part in (model.one, model.two)]
        return sum(v @ (form + form.T) @ v / 2 for v, form in zip(vectors, forms, strict=True))

    found = precondition(Problem(Apart(), data=[None], objective=objective))
    blocks = found.of("blocks")
    assert found.smallest < -found.shift
    assert blocks.condition == pytest.approx(1, abs=1e-9)
    assert blocks.condition_absolute == pytest.approx(1, abs=1e-9)
    assert blocks.cg_iterations == 1
    assert blocks.numbers_held == 64 + 36
    assert found.of("none").condition > 90
    assert {row.name for row in found.left_out} == {
        "ggn-diagonal",
        "kfac",
        "ekfac",
        "shampoo",
        "shampoo-squared",
        "soap",
    }
    assert "objective" in found.left_out[0].why


def test_kfac_makes_one_linear_layer_the_identity():
    torch.manual_seed(0)
    problem = Problem(
        nn.Linear(5, 3).double(), data=[(torch.randn(9, 5).double(), torch.randn(9, 3).double())], loss="mse"
    )
    found = precondition(problem, damping=1e-4)
    for name in ("kfac", "ekfac", "blocks", "shampoo-squared"):
        assert found.of(name).condition == pytest.approx(1, abs=1e-8)
        assert found.of(name).cg_iterations == 1
    assert found.of("kfac").numbers_held == 36 + 9
    assert found.of("ekfac").numbers_held == 36 + 9 + 18
    frontier = {row.name for row in found.preconditioners if row.frontier}
    assert {"none", "kfac", "shampoo-squared"} <= frontier
    assert not frontier & {"ekfac", "blocks", "soap"}


def test_intervals_by_lanczos_hold_what_lapack_has(monkeypatch):
    problem = network(3)
    exact = {damping: precondition(problem, damping=damping) for damping in (0.1, 0.01)}
    beyond(monkeypatch, 8)
    for damping, steps in ((0.1, 30), (0.01, 20)):
        found = precondition(problem, damping=damping, steps=steps, probes=2)
        assert (found.method, exact[damping].method) == ("lanczos", "exact")
        assert found.largest == pytest.approx(exact[damping].largest, rel=1e-6)
        assert 0 < found.resolved < problem.n_parameters
        assert found.unresolved > 0
        lost = found.unresolved_negative > found.shift  # then no more is known than an interval
        assert lost is (damping == 0.01)
        # Of H's own diagonal and blocks, only what was found is there to condition with.
        for name in ("none", "adam", "ggn-diagonal", "kfac", "ekfac", "shampoo", "shampoo-squared", "soap"):
            row, known = found.of(name), exact[damping].of(name)
            for key in ("condition", "condition_absolute"):
                low, high = getattr(row, f"{key}_interval")
                assert low <= getattr(row, key) <= high
                assert low * (1 - 1e-3) <= getattr(known, key) <= high, (name, key)
                assert lost or getattr(row, key) == pytest.approx(getattr(known, key), rel=1e-3)
            assert (row.cg_iterations is None) is lost
            assert lost or abs(row.cg_iterations - known.cg_iterations) <= 1
            assert abs(row.effective_dimension - known.effective_dimension) < 5 * row.effective_dimension_stderr


def test_the_second_moments_of_an_optimizer_with_state(few, tmp_path):
    problem = network(1)
    optimizer = torch.optim.AdamW(problem.model.parameters(), lr=1e-3)
    x, y = problem.data[0]
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(problem.model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    found = precondition(problem, optimizer=optimizer)
    states = [optimizer.state[p] for p in problem.parameters]
    v = np.concatenate([(state["exp_avg_sq"] / (1 - 0.999**3)).flatten().numpy() for state in states])
    H, gradients = brute(problem)
    A, _ = by_hand(problem, H, gradients, positive, found.shift)
    roots = np.sqrt(v) + 1e-8
    P = np.diag(roots * np.linalg.norm(H) / np.linalg.norm(roots) + found.shift)
    values = scipy.linalg.eigh(A, P, eigvals_only=True)
    assert found.optimizer_name == "adamw"
    assert found.optimizer_state == "optimizer"
    assert found.of("adamw").condition == pytest.approx(values[-1] / values[0], rel=1e-8)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    for how in ({"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)}, {"optimizer": "adamw"}, {}):
        saved = precondition(problem, **how, state=str(tmp_path / "state.pt"))
        assert saved.optimizer_state == "checkpoint"
        assert saved.of("adamw").condition == found.of("adamw").condition
    with pytest.raises(SpecError, match="divides by no second moments"):
        precondition(problem, optimizer="sgd(lr=0.1)")


def test_an_interrupt_keeps_what_is_finished_and_resume_goes_on(tmp_path, monkeypatch):
    problem = network(2)
    whole = precondition(problem)
    cut = precondition(problem, progress=ends_after(5), resume=tmp_path / "kept")
    assert cut.status == "interrupted"
    assert cut.preconditioners
    kept = len(cut.preconditioners)
    assert kept < len(whole.preconditioners)
    assert any(one.says.startswith("Interrupted: there is only this: none") for one in cut.findings)
    assert not any(one.says.startswith("Interrupted") for one in whole.findings)
    same = [row.condition for row in whole.preconditioners[:kept]]
    assert [row.condition for row in cut.preconditioners] == same
    rest = precondition(problem, resume=tmp_path / "kept")
    assert rest.resumed_pieces >= kept
    assert rest.preconditioners == whole.preconditioners
    with pytest.raises(SpecError, match="damping was"):
        precondition(problem, damping=0.1, resume=tmp_path / "kept")


def test_a_flat_loss_has_nothing_to_condition():
    problem = Problem(
        nn.Linear(2, 1).double(),
        data=[(torch.ones(1, 2).double(), None)],
        objective=lambda model, batch: model(batch[0]).sum(),
    )
    found = precondition(problem)
    assert found.preconditioners == ()
    assert "nothing to condition" in found.findings[0].says


@pytest.mark.parametrize(
    "wrong", [{"damping": 0}, {"damping": 2}, {"tol": 1e-7}, {"tol": 1}, {"steps": 1}, {"probes": 1}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(SpecError, match=f"--{next(iter(wrong))}"):
        precondition(network(0), **wrong)
