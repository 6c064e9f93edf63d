import re
from dataclasses import replace

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from hessdiag.curvature import checks
from hessdiag.curvature.dense import hessian, hessian_block
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.point.examine import asymmetry
from hessdiag.errors import ComputeError, LoadError, SpecError
from hessdiag.problem.problem import Problem
from tests.reference import brute_force_hessian, cosine_problem, quadratic, share


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        h = self.embed(tokens)
        return self.head(self.norm(h + self.attention(h, h, h, need_weights=False)[0]).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Beside(nn.Module):
    """What a batch norm is given is used without it, and changed in place."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        z = self.convolution(x)
        return self.norm(z) * z + self.norm(self.convolution(x).sigmoid_())


def _detached(norm, z):
    return norm(z.detach_())


def _replaced(norm, z):
    z.data = z.data.round(decimals=1)
    return norm(z)


def _hooked(norm, z):
    normalized = norm(z)
    z.register_hook(lambda slope: 3 * slope)
    return normalized


def _slope(norm, z):
    return torch.autograd.grad((norm(z).square() + z).sum(), z, create_graph=True)[0]


class More(nn.Module):
    """Does more with a convolution's output than to normalize it."""

    def __init__(self, more):
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Conv1d(3, 3, 1)
        self.more = more
        _used(self)

    def forward(self, x):
        return self.head(self.more(self.norm, self.convolution(x)))


class Unbatched(nn.Module):
    """Batch norm takes the positions of a single sample for its channels."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)
        _used(self)

    def forward(self, x):
        return torch.stack([self.norm(self.convolution(one)) for one in x])


class Physics(nn.Module):
    """The derivative of a network in its input, as equations of physics ask for it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def forward(self, x):
        return torch.func.vmap(torch.func.grad(lambda one: self.body(one)[0]))(x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, left, right):
        return torch.sigmoid(self.a(left)) * self.b(right)


class Hosted(nn.Module):
    """Answers with an object that holds logits and loss, as Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)

    def forward(self, features, labels=None):
        logits = torch.nn.functional.gelu(self.body(features))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return type("Output", (), {"logits": logits, "loss": loss})()


def _x(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _classes(n, k=3):
    return torch.arange(n) % k


def _used(model):
    """Batch norms as training leaves them, in place of those that change nothing."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.double()


def _frozen():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    return model


CASES = {
    "mlp, cross-entropy": lambda: Problem(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double(), data=[(_x(6, 3), _classes(6))], loss="ce"),
    "several batches of unequal size": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double(), data=[(_x(5, 3), _x(5, 2)), (_x(2, 3), _x(2, 2))], loss="mse"),
    "a sum over batches": lambda: Problem(nn.Linear(3, 2).double(), data=[(_x(5, 3), _x(5, 2)), (_x(2, 3), _x(2, 2))], loss=nn.MSELoss(reduction="sum")),
    "ignored targets": lambda: Problem(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double(), data=[(_x(4, 3), torch.tensor([0, -100, 2, 1])), (_x(3, 3), torch.tensor([-100, -100, 1]))], loss="ce"),
    "convolution, group norm": lambda: Problem(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.SiLU(), nn.Flatten(), nn.Linear(8, 3)).double(), data=[(_x(3, 1, 4, 4), _classes(3))], loss="ce"),
    "convolution, max pooling, relu": lambda: Problem(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)).double(), data=[(_x(3, 1, 6, 6), _classes(3))], loss="ce"),
    "batch norm, eval mode": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double(), data=[(_x(5, 3), _x(5, 2))], loss="mse"),
    "convolutions and batch norms, eval mode": lambda: Problem(_used(nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 2, padding=1, groups=2, bias=False), nn.BatchNorm2d(4, affine=False), nn.ELU(inplace=True), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(32, 2))), data=[(_x(3, 2, 5, 5), _x(3, 2))], loss="mse"),
    "a batch norm beside its convolution": lambda: Problem(_used(Beside()), data=[(_x(3, 2, 5), _x(3, 3, 3))], loss="mse"),
    "differentiated in a convolution's output": lambda: Problem(More(_slope), data=[(_x(3, 2, 5), _x(3, 3, 3))], loss="mse"),
    "a batch norm of single samples": lambda: Problem(Unbatched(), data=[(_x(3, 2, 5), _x(3, 3, 3))], loss="mse"),
    "batch norm, train mode": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double(), data=[(_x(5, 3), _x(5, 2))], loss="mse", train_mode=True),
    "attention": lambda: Problem(Attention().double(), data=[(torch.randint(0, 7, (4, 5)), _classes(4))], loss="ce"),
    "tied and unreached": lambda: Problem(Tied().double(), data=[(_x(5, 4), _x(5, 4))], loss="mse"),
    "frozen": lambda: Problem(_frozen().double(), data=[(_x(5, 3), _classes(5))], loss="ce"),
    "two inputs": lambda: Problem(TwoInputs().double(), data=[((_x(5, 3), _x(5, 2)), _x(5, 2))], loss="mse"),
    "mapping, own loss": lambda: Problem(Hosted().double(), data=[{"features": _x(5, 3), "labels": _classes(5, 4)}], loss="output"),
    "mapping, named loss": lambda: Problem(Hosted().double(), data=[{"features": _x(5, 3), "labels": _classes(5, 4)}], loss="ce"),
    "some layers": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double(), data=[(_x(5, 3), _classes(5))], loss="ce", layers="2*"),
    "sequence of classes": lambda: Problem(nn.Linear(3, 4).double(), data=[(_x(2, 5, 3), torch.randint(0, 4, (2, 5)))], loss="ce"),
    "binary": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 1)).double(), data=[(_x(5, 3), torch.tensor([0.0, 1, 1, 0, 1]))], loss="bce"),
    "log-likelihood": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(-1)).double(), data=[(_x(5, 3), _classes(5))], loss="nll"),
    "differentiated in its input": lambda: Problem(Physics(), data=[(_x(5, 3), _x(5, 3))], loss="mse"),
    "recurrent": lambda: Problem(_Last(), data=[(_x(3, 4, 2), _classes(3))], loss="ce"),
}  # fmt: skip


class _Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(2, 3, batch_first=True).double(), nn.Linear(3, 3).double()

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("name", CASES)
def test_dense_matches_brute_force(name):
    problem = CASES[name]()
    expected = brute_force_hessian(problem)
    H = hessian(problem)
    assert H.shape == expected.shape == (problem.n_parameters,) * 2
    assert float((H - expected).abs().max()) <= 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_products_are_columns_of_the_dense_matrix(name):
    problem = CASES[name]()
    operator, H = HessianOperator(problem), hessian(problem)
    V = torch.randn(operator.shape[1], 3, dtype=torch.float64)
    torch.testing.assert_close(operator @ V, H @ V, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(operator @ V[:, 0], H @ V[:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_self_checks_pass(name):
    operator = HessianOperator(CASES[name]())
    assert checks.examine(operator).checks["hvp_symmetry"] < 1e-12
    assert checks.examine(operator).checks["hvp_finite_difference"] < 1e-6
    assert operator.missing is None


def test_blocks_are_parts_of_the_dense_matrix():
    problem = CASES["attention"]()
    H = hessian(problem)
    for rows in problem.layer_slices[:2]:
        for columns in problem.layer_slices:
            expected = H[rows.start : rows.stop, columns.start : columns.stop]
            torch.testing.assert_close(hessian_block(problem, rows, columns), expected, rtol=1e-10, atol=1e-13)


def test_one_batch_or_many_is_the_same_function():
    x, y = _x(12, 3), _classes(12)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    whole = hessian(Problem(model, data=[(x, y)], loss="ce"))
    parts = hessian(Problem(model, data=[(x[:7], y[:7]), (x[7:8], y[7:8]), (x[8:], y[8:])], loss="ce"))
    torch.testing.assert_close(whole, parts, rtol=1e-10, atol=1e-13)


def test_second_opinion_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    data = [(_x(7, 4), _classes(7)), (_x(3, 4), _classes(3))]
    theirs = curvlinops.HessianLinearOperator(model, nn.CrossEntropyLoss(), list(model.parameters()), data)
    ours = HessianOperator(Problem(model, data=data, loss="ce"))
    V = torch.randn(ours.shape[0], 4, dtype=torch.float64)
    torch.testing.assert_close(ours @ V, theirs @ V, rtol=1e-9, atol=1e-12)


def test_second_opinion_hessian_eigenthings():
    library = pytest.importorskip("hessian_eigenthings")
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = _x(7, 4), _classes(7)
    theirs = library.HessianOperator(
        model, [(x, y)], lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1])
    )
    ours = HessianOperator(Problem(model, data=[(x, y)], loss="ce"))
    v = torch.randn(ours.shape[0], dtype=torch.float64)
    torch.testing.assert_close(ours @ v, theirs.matvec(v), rtol=1e-9, atol=1e-12)


def test_training_state_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()
    model.train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    problem = Problem(model, data=[(_x(5, 3), _x(5, 2))], loss="mse", train_mode=True)
    state = torch.random.get_rng_state()
    operator = HessianOperator(problem)
    operator @ torch.ones(operator.shape[0], dtype=torch.float64)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert not model[2].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_keeps_one_mask():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2)).double()
    problem = Problem(model, data=[(_x(5, 3), _x(5, 2))], loss="mse", train_mode=True, seed=3)
    torch.testing.assert_close(hessian(problem), hessian(problem), rtol=0, atol=0)
    assert checks.examine(HessianOperator(problem)).checks["hvp_finite_difference"] < 1e-6


def test_attention_needs_no_preparation():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    problem = Problem(layer, data=[(_x(2, 3, 8), _x(2, 3, 8))], loss="mse")
    assert checks.examine(HessianOperator(problem)).checks["hvp_finite_difference"] < 1e-6


def test_compiled_models_are_unwrapped():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(_x(5, 3), _x(5, 2))]
    torch.testing.assert_close(
        hessian(Problem(torch.compile(model), data=data, loss="mse")),
        hessian(Problem(model, data=data, loss="mse")),
    )


def test_mixed_dtypes_are_measured_in_the_widest():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    single = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    single.load_state_dict(model.state_dict())
    single[2].double()

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = single

        def forward(self, x):
            return self.net[2](self.net[1](self.net[0](x.float())).double())

    x, y = _x(5, 3), _x(5, 2)
    mixed = Problem(Cast(), data=[(x, y)], loss="mse")
    assert HessianOperator(mixed).dtype == torch.float64
    torch.testing.assert_close(hessian(mixed), hessian(Problem(model, data=[(x, y)], loss="mse")), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [_detached, _replaced, _hooked])
def test_what_a_model_does_between_convolution_and_batch_norm_counts(more):
    torch.manual_seed(0)
    problem = Problem(More(more), data=[(_x(3, 2, 5), _x(3, 3, 3))], loss="mse")
    ((x, y),) = problem.data
    value = nn.functional.mse_loss(problem.model.eval()(x), y)
    gradient = torch.autograd.grad(value, problem.parameters, create_graph=True, materialize_grads=True)
    expected = [
        torch.cat([part.flatten() for part in torch.autograd.grad(entry, problem.parameters, retain_graph=True, materialize_grads=True)])
        if entry.requires_grad
        else torch.zeros(problem.n_parameters, dtype=torch.float64)
        for entry in torch.cat([part.flatten() for part in gradient]).unbind()
    ]  # fmt: skip
    torch.testing.assert_close(hessian(problem, check=False), torch.stack(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_lower_precision(dtype, tolerance):
    model, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        torch.randn(5, 3),
        torch.randn(5, 2),
    )
    exact = hessian(Problem(model.double(), data=[(x.double(), y.double())], loss="mse"))
    H = hessian(Problem(model.to(dtype), data=[(x.to(dtype), y.to(dtype))], loss="mse"))
    assert H.dtype == torch.float32
    assert float((H - exact).norm() / exact.norm()) < tolerance


def test_a_loop_takes_over_where_vmap_cannot():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * Square.apply(x)

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return 3 * x**2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 6 * x if grad.sum().item() else torch.zeros_like(x)  # vmap refuses .item()

    model = nn.Linear(5, 1, bias=False).double()
    problem = Problem(model, data=[torch.zeros(1)], objective=lambda model, batch: Cube.apply(model.weight).sum())
    operator = HessianOperator(problem)
    torch.testing.assert_close(operator.rows(torch.arange(5)), torch.diag(6 * model.weight[0].detach()))
    assert "one vector at a time" in operator.engine


def test_wrong_products_are_caught():
    class Lying(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x.detach() * x  # its derivative is half of the truth

    model = nn.Linear(3, 1, bias=False).double()
    problem = Problem(model, data=[torch.zeros(1)], objective=lambda model, batch: Lying.apply(model.weight).sum())
    found = checks.examine(HessianOperator(problem, check=False))
    assert found.point.kind == "wrong"
    assert found.point.error > 0.1
    expected = torch.diag(6 * model.weight.detach().flatten())
    torch.testing.assert_close(hessian(problem), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("factor", "size", "cure"), [(1e-200, "-(199|200|201)", "199|200"), (1e200, r"\+(199|200|201)", "-200|-201")]
)
def test_products_whose_squares_are_beyond_float64_are_refused_on_request(factor, size, cure):
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    problem = Problem(model, data=[None], objective=lambda model, batch: factor * (model.weight**2).sum())
    checks.examine(HessianOperator(problem))
    with pytest.raises(ComputeError, match=rf"are of size \de{size}: their squares are beyond float64") as raised:
        checks.examine(HessianOperator(problem), squared=True)
    assert re.search(rf"returns the loss times 1e\+?({cure})$", raised.value.hint)


def test_asymmetric_products_are_caught():
    class Skewed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**2).sum()

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (2 * x + torch.cumsum(x, -1))

    model = nn.Linear(4, 1, bias=False).double()
    problem = Problem(model, data=[torch.zeros(1)], objective=lambda model, batch: Skewed.apply(model.weight))
    assert checks.examine(HessianOperator(problem)).checks["hvp_symmetry"] > 1e-3


def test_loss_that_ignores_the_parameters():
    problem = Problem(nn.Linear(3, 2), data=[torch.ones(2)], objective=lambda model, batch: batch.sum())
    with pytest.raises(ComputeError, match="does not depend on any trainable parameter"):
        HessianOperator(problem).rows(torch.arange(1))


def test_dense_refuses_what_does_not_fit(monkeypatch):
    large = Problem(
        nn.Linear(1000, 1000).double(), data=[(torch.ones(1, 1000).double(), torch.ones(1, 1000).double())], loss="mse"
    )
    monkeypatch.setattr("hessdiag.curvature.dense.free_bytes", lambda device: 1000)
    with pytest.raises(ComputeError, match=r"of 1,001,000 parameters takes 7465\.5 GiB"):  # 8 bytes each
        hessian(large)
    with pytest.raises(ComputeError, match="here 8 parameters fit"):
        hessian(cosine_problem([3, 4, 3, 2], 5, "tanh"))


class OwnProducts(nn.Module):
    """Without a layer that neuron space knows: every row is a product."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.eye(6, 4).double()), nn.Parameter(torch.ones(4, 2).double())

    def forward(self, x):
        return torch.tanh(x @ self.first) @ self.second


@pytest.mark.parametrize(("count", "free", "rows"), [(1, 2**30, 4), (3, 2**30, 32), (1, 14_500, 2), (1, 13_000, 1)])
def test_dense_holds_few_rows_beside_the_matrix(monkeypatch, count, free, rows):
    torch.manual_seed(0)
    model = OwnProducts()
    data = [(torch.randn(2, 6).double(), torch.randn(2, 2).double()) for _ in range(count)]
    problem = Problem(model, data=data, loss="mse")
    expected, n = hessian(replace(problem)), problem.n_parameters
    monkeypatch.setattr("hessdiag.curvature.dense.free_bytes", lambda device: free)
    monkeypatch.setattr("hessdiag.curvature.operator.chunk_size", lambda *sizes: 4)
    asked = []
    plain = HessianOperator.rows
    monkeypatch.setattr(HessianOperator, "rows", lambda self, some: asked.append(len(some)) or plain(self, some))
    torch.testing.assert_close(hessian(problem), expected, rtol=1e-12, atol=1e-14)
    assert (max(asked), sum(asked)) == (min(rows, n), n)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda m, d: Problem(m, data=d), SpecError, "a loss or an objective"),
        (lambda m, d: Problem(m, data=d, loss="hinge"), SpecError, "unknown loss 'hinge'"),
        (lambda m, d: Problem(m, data=[], loss="mse"), LoadError, "at least one batch"),
        (
            lambda m, d: Problem(m, data=d, loss="mse", layers="conv*"),
            SpecError,
            "matches no trainable parameter",
        ),
        (
            lambda m, d: Problem(m.requires_grad_(False), data=d, loss="mse"),
            LoadError,
            "no trainable parameter",
        ),
        (lambda m, d: Problem(m, data=[(d[0][0] / 0, d[0][1])], loss="mse"), LoadError, "NaN or infinite"),
        (lambda m, d: Problem(m, data=[(d[0][0], d[0][1], 1)], loss="mse"), LoadError, "a batch must be"),
    ],
)
def test_bad_problems_are_refused(make, error, match):
    model, data = nn.Linear(3, 2), [(torch.zeros(4, 3), torch.zeros(4, 2))]
    with pytest.raises(error, match=match):
        HessianOperator(make(model, data)).rows(torch.arange(1))


def test_wrong_shape_says_so():
    problem = Problem(nn.Linear(3, 2), data=[(torch.zeros(4, 5), torch.zeros(4, 2))], loss="mse")
    with pytest.raises(ComputeError, match="do not fit"):
        HessianOperator(problem).rows(torch.arange(1))


def test_shares_of_known_matrices():
    A = torch.tensor([[4, 1, 0, -0.5], [1, -2, 0.3, 0], [0, 0.3, 1, 0.2], [-0.5, 0, 0.2, 7]], dtype=torch.float64)
    assert share(hessian(quadratic(A))) == pytest.approx(0.777778, abs=5e-7)


def test_kinks_at_the_point_itself_raise_no_alarm():
    """Blank samples and zero biases put every pre-activation on the kink, where no difference can agree."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    for module in (model[0], model[2]):
        nn.init.zeros_(module.bias)
    x = _x(5, 1, 6, 6)
    x[:2] = 0
    problem = Problem(model, data=[(x, _classes(5))], loss="ce")
    assert checks.examine(HessianOperator(problem)).checks["hvp_finite_difference"] < 1e-5


def test_frozen_padding_raises_no_alarm():
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    problem = Problem(model, data=[(torch.tensor([[0, 1, 2, 0], [3, 4, 0, 0]]), _classes(2, 2))], loss="ce")
    assert checks.examine(HessianOperator(problem)).checks["hvp_finite_difference"] < 1e-5


def test_checkpointed_parts_run_again_in_the_same_mode():
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.5))
            self.head = nn.Linear(12, 2)

        def forward(self, x):
            h = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)
            return self.head(h.flatten(1))

    model = Checkpointed().double().train()
    x, y = _x(5, 2, 4), _x(5, 2)
    plain = nn.Sequential(model.body, nn.Flatten(), model.head)
    expected = hessian(Problem(plain, data=[(x, y)], loss="mse"))
    problem = Problem(model, data=[(x, y)], loss="mse")
    torch.testing.assert_close(hessian(problem), expected, rtol=1e-10, atol=1e-12)
    operator, v = HessianOperator(problem), torch.ones(problem.n_parameters).double()
    for _ in range(2):  # the graph that the first product leaves is what the second uses
        torch.testing.assert_close(operator @ v, expected @ v, rtol=1e-10, atol=1e-12)


def test_hooks_run_in_the_same_mode_in_every_product():
    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = torch.tanh(self.body(x))
            h.register_hook(lambda gradient: gradient * 0.5 if self.training else gradient)
            return self.head(h)

    problem = Problem(Hooked().double().train(), data=[(_x(5, 3), _x(5, 2))], loss="mse")
    operator, v = HessianOperator(problem), torch.ones(problem.n_parameters).double()
    torch.testing.assert_close(operator @ v, operator @ v, rtol=0, atol=0)


def test_every_batch_is_prepared_alike():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))

        def forward(self, x):
            large = len(x) > 3
            return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False) if large else self.body(x)

    model = Sometimes().double().train()
    problem = Problem(model, data=[(_x(2, 3), _x(2, 2)), (_x(5, 3), _x(5, 2))], loss="mse")
    operator, v = HessianOperator(problem), torch.ones(problem.n_parameters).double()
    torch.testing.assert_close(operator @ v, operator @ v, rtol=0, atol=0)
    assert operator.missing is None
    assert int(model.body[1].num_batches_tracked) == 0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_asymmetry_is_the_same_whatever_the_size_of_products(size):
    generator = torch.Generator().manual_seed(0)
    V, HV = torch.randn(2, 5, 3, generator=generator).unbind()
    assert asymmetry(V, HV) > 0.1  # two norms that vanish would agree exactly
    assert asymmetry(V, size * HV) == pytest.approx(asymmetry(V, HV), rel=1e-5)
