"""LODO against its definition: dense matrices, autograd through the update, and the paper's algorithm line by line."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg import eigsh
from hessdiag.optimizers import LODO
from hessdiag.optimizers.learned_matrix import VARIANTS, shape_of, wide

CPU = torch.device("cpu")


def double(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(matrix):
    return matrix @ torch.eye(matrix.shape[0], dtype=matrix.dtype)


def made(variant, n, depth=16, block=4, seed=0):
    """A shape, and numbers far from its start."""
    shape = shape_of(variant, n, depth, block, seed, CPU)
    phi = shape.initial(torch.Generator().manual_seed(seed), torch.zeros(0, dtype=torch.float64))
    return shape, phi + 0.2 * double(*phi.shape, seed=1)


def by_definition(variant, shape, phi):
    """S (n, n), of permutation matrices and blocks as the formulas have them; differentiable in phi."""
    if variant == "diagonal":
        return phi.diag()
    if variant == "global":
        return phi * torch.eye(3, dtype=phi.dtype)
    identity = torch.eye(shape.wide, dtype=phi.dtype)
    P, D = identity, identity
    for layer, order in enumerate(shape._there):
        permuted = identity[order.reshape(-1)]
        if variant == "lodo":
            P = torch.block_diag(*phi[layer]) @ permuted @ P
        else:
            P = (identity + phi[layer].diag() @ permuted) @ P
    if variant == "residual":
        D = phi[-1].diag()
    E = identity[:, : shape.n]
    return E.T @ P.T @ D @ P @ E


@pytest.mark.parametrize("n", [1, 2, 3, 100])
@pytest.mark.parametrize("variant", VARIANTS)
def test_starts_as_gradient_descent(variant, n):
    G = dense(LODO([nn.Parameter(double(n))], alpha=0.27, variant=variant).matrix())
    assert (G - 0.27 * torch.eye(n, dtype=G.dtype)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("n", "block", "entries"), [(100, 4, 204), (2, 4, 8), (3, 4, 8), (4, 4, 12), (5, 3, 12), (6, 3, 15), (1, 1, 3)]
)
def test_the_space_is_wider(n, block, entries):
    assert wide(n, block) == entries
    state = next(iter(LODO([nn.Parameter(double(n))], depth=5, block=block).state.values()))
    assert state["phi"].shape == (5, entries // block, block, block)
    residual = next(iter(LODO([nn.Parameter(double(n))], block=block, variant="residual").state.values()))
    assert residual["phi"].shape == (65, entries)


@pytest.mark.parametrize("variant", VARIANTS)
def test_products_and_slopes_are_those_of_the_definition(variant):
    shape, phi = made(variant, 3, depth=4)
    V, left, right = double(3, 2, seed=2), double(3, seed=3), double(3, seed=4)
    phi.requires_grad_(True)
    S = by_definition(variant, shape, phi)
    assert (shape.product(phi, V) - S @ V).abs().max() < 1e-12
    (expected,) = torch.autograd.grad(left @ S @ right, phi)
    found = shape.slope(phi.detach(), left, right)
    assert found.shape == phi.shape
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fast_hypergradient_is_autograd_through_the_update(variant):
    """d loss(x - G(phi) m) / d phi, of a loss that is no quadratic."""
    shape, phi = made(variant, 100)
    x, m = double(100, seed=2), double(100, seed=3)
    curved = double(100, 100, seed=4) / 10

    def loss(at):
        return (torch.tanh(curved @ at) ** 2).sum() + (at**4).mean()

    phi.requires_grad_(True)
    after = x - 0.27 * shape.product(phi, m[:, None])[:, 0]
    value = loss(after)
    (expected,) = torch.autograd.grad(value, phi, retain_graph=True)
    (g,) = torch.autograd.grad(value, after)
    found = -0.27 * shape.slope(phi.detach(), g, m)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


def keras_adam(phi, slope, state, count, lr):
    state["m"] = 0.9 * state["m"] + 0.1 * slope
    state["v"] = 0.999 * state["v"] + 0.001 * slope**2
    rate = lr * math.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    return phi - rate * state["m"] / (state["v"].sqrt() + 1e-7)


def algorithm_1(loss, x, alpha, lr, beta, steps, variant, meta):
    """As the paper writes it: step with the matrix, evaluate, learn by autograd through the step, average."""
    shape, _ = made(variant, len(x), depth=3)
    phi = shape.initial(torch.Generator().manual_seed(0), x)
    m, state = torch.zeros_like(x), {"m": torch.zeros_like(phi), "v": torch.zeros_like(phi)}
    losses = []
    for count in range(1, steps + 1):
        phi = phi.detach().requires_grad_(True)
        after = x - alpha * (by_definition(variant, shape, phi) @ m)
        value = loss(after)
        slope, g = torch.autograd.grad(value, (phi, after))
        phi = keras_adam(phi, slope, state, count, lr) if meta == "adam" else phi - lr * slope
        x, m = after.detach(), beta * m + (1 - beta) * g
        losses.append(value.item())
    return losses


def valley(w):
    return (w[0] ** 2 + 5 * (w[1] - w[0] ** 2) ** 2 + torch.cosh(w[2] + w[1])) / 3


@pytest.mark.parametrize(
    ("variant", "meta", "lr", "beta"),
    [
        ("lodo", "adam", 0.02, 0.7),
        ("lodo", "adam", 0.02, 0.0),
        ("lodo", "sgd", 0.3, 0.7),
        ("residual", "adam", 0.02, 0.5),
        ("diagonal", "sgd", 1.0, 0.5),
        ("global", "adam", 0.02, 0.5),
    ],
)
def test_steps_are_those_of_the_algorithm(variant, meta, lr, beta):
    start = double(3, seed=5)
    expected = algorithm_1(valley, start, 0.1, lr, beta, 12, variant, meta)
    w = nn.Parameter(start.clone())
    optimizer = LODO([w], 0.1, lr, beta, depth=3, variant=variant, meta=meta, seed=0)
    found = [optimizer.step(lambda: valley(w)) for _ in range(12)]
    assert found == pytest.approx(expected, rel=1e-10)
    plain = algorithm_1(valley, start, 0.1, 0.0, beta, 12, variant, meta)
    assert abs(expected[-1] - plain[-1]) > 1e-4  # what is learned shows


@pytest.mark.parametrize(("meta", "lr"), [("adam", 2e-3), ("sgd", 1e-2)])
def test_stays_symmetric_and_positive_definite(meta, lr):
    w, mixed = nn.Parameter(double(30)), double(30, 30, seed=1) / 5
    optimizer = LODO([w], 0.1, lr, 0.5, meta=meta)
    lowest, losses = [], []
    for _ in range(60):
        losses.append(optimizer.step(lambda: (mixed @ w).cos().sum() + (w**2).sum() / 20))  # wells and saddles
        G = dense(optimizer.matrix())
        assert (G - G.T).abs().max() < 1e-12 * G.abs().max()
        lowest.append(float(torch.linalg.eigvalsh(G)[0]))
    assert losses[-1] < losses[0] - 10
    assert (G - 0.1 * torch.eye(30)).norm() > 0.1  # it has learned
    assert min(lowest) > 0.01
    assert float(eigsh(optimizer.matrix(), lowest=1, highest=0).values[0]) == pytest.approx(lowest[-1], rel=1e-3)


def test_is_positive_semidefinite_whatever_its_numbers_are():
    """Singular blocks make it singular: definite in most cases, as the paper says, and semidefinite in all."""
    w = nn.Parameter(double(30))
    optimizer = LODO([w], alpha=1.0)
    phi = optimizer.state[w]["phi"]
    phi.copy_(double(*phi.shape, seed=7) / 2)
    phi[3, :12] = 0.0  # of 16: 16 directions of 64 are left, fewer than 30
    values = torch.linalg.eigvalsh(dense(optimizer.matrix()))
    assert values[0] > -1e-12 * values[-1]
    assert (values > 1e-12 * values[-1]).sum() == 16
    phi[3] = 0.0
    assert not dense(optimizer.matrix()).any()


@pytest.mark.parametrize("variant", ["diagonal", "global", "residual"])
def test_other_variants_can_become_indefinite(variant):
    w = nn.Parameter(double(6))
    optimizer = LODO([w], alpha=1.0, variant=variant)
    optimizer.state[w]["phi"].neg_()
    G = dense(optimizer.matrix())
    assert (G - G.T).abs().max() < 1e-12 * G.abs().max()
    assert torch.linalg.eigvalsh(G)[0] < 0


def test_a_saddle_repels():
    """I - GH expands along a direction of negative curvature for any G > 0 (section 4.2)."""
    w = nn.Parameter(double(20))
    optimizer = LODO([w], alpha=0.5, meta_lr=1e-9, beta=0.0)
    phi = optimizer.state[w]["phi"]
    phi.copy_(phi + double(*phi.shape, seed=8) / 20)
    G, A = dense(optimizer.matrix()), double(20, 20, seed=9)
    values, vectors = torch.linalg.eigh(A + A.T)
    values = torch.cat([-values[:1].abs(), values[1:].abs()])  # all but one direction curve up
    H = vectors @ values.diag() @ vectors.T / values.max() / torch.linalg.eigvalsh(G)[-1]
    factors, directions = torch.linalg.eig(torch.eye(20) - G @ H)
    worst = factors.real.argmax()
    assert factors.real[worst] > 1
    y = directions[:, worst].real
    assert y @ H @ y < 0
    w.data.copy_(1e-6 * double(20, seed=10))
    losses = [optimizer.step(lambda: (w @ H @ w) / 2) for _ in range(300)]
    assert losses[-1] < -100 * abs(losses[0])
    assert abs(torch.cosine_similarity(w.detach(), y, dim=0)) > 0.999


def test_a_matrix_stays_as_it_was_asked_for():
    w = nn.Parameter(double(10))
    optimizer = LODO([w], alpha=0.1, meta_lr=0.05)
    before = optimizer.matrix()
    for _ in range(5):
        optimizer.step(lambda: (w**2).sum())
    v = double(10, seed=2)
    assert (before @ v - 0.1 * v).abs().max() < 1e-12
    assert (optimizer.matrix() @ v - 0.1 * v).abs().max() > 1e-3
    assert torch.equal(optimizer.matrix() @ v, (optimizer.matrix() @ v[:, None])[:, 0])


def test_parameters_are_one_vector_in_order():
    first, second = nn.Parameter(double(2, 3)), nn.Parameter(double(4, seed=1))
    both = nn.Parameter(torch.cat([first.detach().reshape(-1), second.detach()]))
    frozen = nn.Parameter(double(5), requires_grad=False)
    parts, whole = LODO([first, frozen, second], 0.1, 0.01), LODO([both], 0.1, 0.01)
    for _ in range(4):
        parts.step(lambda: (first**4).sum() + (first.sum() * second).square().sum())
        whole.step(lambda: (both[:6] ** 4).sum() + (both[:6].sum() * both[6:]).square().sum())
    assert torch.equal(torch.cat([first.reshape(-1), second]), both)
    assert torch.equal(frozen, double(5))
    assert parts.matrix().shape == (10, 10)


def test_one_gradient_a_step(monkeypatch):
    calls, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **more: calls.append(1) or grad(*args, **more))
    w, evaluations = nn.Parameter(double(8)), []

    def closure():
        evaluations.append(1)
        return (w**2).sum()

    optimizer = LODO([w], alpha=0.1, beta=0.5)
    assert optimizer.last is None
    start, before = w.detach().clone(), w.detach().clone()
    for count in range(1, 4):
        before = w.detach().clone()
        loss = optimizer.step(closure)
        assert loss == pytest.approx(float((before**2).sum()))
        last = optimizer.last
        assert (len(calls), len(evaluations)) == (count, count)
        assert (last.loss, last.accepted, last.gradients, last.products, last.evaluations) == (loss, True, 1, 0, 1)
        assert last.length == pytest.approx(float((w - before).detach().norm()), rel=1e-9)
        assert last.backpropagations == 1
    assert not torch.equal(start, before)


def test_steps_are_cut_and_learning_is_not():
    start = double(8)
    w, free = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    cut, whole = LODO([w], 0.5, 0.01, 0.0, max_step=0.01), LODO([free], 0.5, 0.01, 0.0)
    cut.step(lambda: (w**2).sum())
    whole.step(lambda: (free**2).sum())
    assert cut.last.length == pytest.approx(0.01 * float(start.norm()))
    assert cut.last.length == pytest.approx(float((w - start).detach().norm()))
    assert torch.cosine_similarity(w - start, free - start, dim=0) > 1 - 1e-12
    assert torch.equal(cut.state[w]["momentum"], whole.state[free]["momentum"])
    zero = nn.Parameter(torch.zeros(8, dtype=torch.float64))
    LODO([zero], 0.5, beta=0.0, max_step=0.01).step(lambda: ((zero - 1) ** 2).sum())
    assert (zero - 1).abs().max() < 1e-12  # no length to cut by: a whole step


def test_what_is_not_finite_moves_nothing():
    w = nn.Parameter(torch.tensor([1.0, 0.0], dtype=torch.float64))
    optimizer = LODO([w], 0.1, 0.01)
    optimizer.step(lambda: (w**2).sum())
    point, state = w.detach().clone(), copy.deepcopy(optimizer.state[w])
    loss = optimizer.step(lambda: (w / 0.0).sum())
    assert not math.isfinite(loss)
    assert (optimizer.last.accepted, optimizer.last.length) == (False, 0.0)
    assert torch.equal(w, point)
    for name, value in state.items():
        assert torch.equal(torch.as_tensor(optimizer.state[w][name]), torch.as_tensor(value))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_state_goes_on(variant):
    def run(w, optimizer, steps):
        return [optimizer.step(lambda: valley(w)) for _ in range(steps)]

    w = nn.Parameter(double(3, seed=5))
    optimizer = LODO([w], 0.1, 0.02, 0.7, depth=3, variant=variant, seed=4)
    run(w, optimizer, 5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = nn.Parameter(w.detach().clone())
    loaded = LODO([other], variant=variant, depth=3)  # of other settings, and other permutations
    loaded.matrix()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert run(other, loaded, 5) == run(w, optimizer, 5)


def test_the_same_seed_gives_the_same_numbers():
    def losses(seed):
        before = torch.get_rng_state()
        w = nn.Parameter(double(3, seed=5))
        optimizer = LODO([w], 0.1, 0.02, seed=seed)
        found = [optimizer.step(lambda: valley(w)) for _ in range(6)]
        assert torch.equal(torch.get_rng_state(), before)
        return found

    assert losses(1) == losses(1) != losses(2)
    torch.manual_seed(2)
    assert losses(None) == losses(2)
    torch.randn(3)
    assert losses(None) == losses(2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alpha": 0.0}, "alpha has to be a positive number, not 0.0"),
        ({"alpha": math.nan}, "alpha has to be a positive number, not"),
        ({"meta_lr": -1.0}, "meta_lr has to be 0 or a positive number, not -1.0"),
        ({"beta": 1.0}, "beta has to be at least 0 and below 1"),
        ({"depth": 0}, "depth has to be at least 1"),
        ({"block": 0}, "block has to be at least 1"),
        ({"eps": -1e-9}, "eps has to be 0 or a positive number"),
        ({"max_step": 0.0}, "max_step has to be positive, or None"),
        ({"variant": "residuals"}, "(?s)variant is one of lodo, diagonal, global, residual.*variant='residual'"),
        ({"meta": "rmsprop"}, "meta is one of adam, sgd"),
    ],
)
def test_what_is_out_of_range_is_refused(settings, says):
    with pytest.raises(SpecError, match=says):
        LODO([nn.Parameter(double(3))], **settings)


def test_what_cannot_be_learned_is_refused():
    large = nn.Parameter(torch.zeros(100_001))
    with pytest.raises(SpecError, match=r"(?s)100,001 parameters takes 0\.1 GiB.*at_most=100001"):
        LODO([large])
    with pytest.raises(SpecError, match="up to 100,000"):
        LODO([large], variant="residual")
    LODO([large], variant="diagonal")
    with pytest.raises(SpecError, match=r"up to 5 are taken"):
        LODO([nn.Parameter(double(6))], at_most=5)
    LODO([nn.Parameter(double(5))], at_most=5)
    with pytest.raises(SpecError, match=r"(?s)bfloat16 rounds away.*float32"):
        LODO([nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))])
    with pytest.raises(SpecError, match="no parameter"):
        LODO([nn.Parameter(double(3), requires_grad=False)])
    with pytest.raises(SpecError, match="one group"):
        LODO([{"params": [nn.Parameter(double(3))]}, {"params": [nn.Parameter(double(3))]}])
    first, second = nn.Parameter(double(3)), nn.Parameter(double(3))
    optimizer = LODO([first, second])
    second.requires_grad_(False)
    with pytest.raises(SpecError, match="made for 6 parameters, and now there are 3"):
        optimizer.step(lambda: (first**2).sum())


def test_a_closure_without_a_graph_is_refused():
    w = nn.Parameter(double(3))
    optimizer = LODO([w])

    def backward():
        loss = (w**2).sum()
        loss.backward()
        return loss

    with pytest.raises(ComputeError, match=r"(?s)gone backward already.*without loss\.backward"):
        optimizer.step(backward)
    with pytest.raises(ComputeError, match="does not depend"):
        optimizer.step(lambda: (w**2).sum().detach())
