"""Layers in the order in which they are executed, and how deep each lies, of models that register them otherwise."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint

from hessdiag.problem.problem import Problem


def _seen(model, *inputs, target=None, **options):
    """Names in order, and the depths of those that have one."""
    torch.manual_seed(0)
    y = torch.zeros(2, 3) if target is None else target
    options = options or {"loss": "mse"}
    problem = Problem(model, data=[(inputs if len(inputs) > 1 else inputs[0], y)], **options)
    names = [layer.name for layer in problem.executed_layers]
    return names, {name: depth for name, depth in zip(names, problem.depths, strict=True) if depth is not None}


class Reversed(nn.Module):
    """Registered from the last layer to the first, after a temperature and a variance of the loss."""

    def __init__(self, count=5):
        super().__init__()
        self.temperature = nn.Parameter(torch.zeros(()))
        self.log_variance = nn.Parameter(torch.zeros(()))
        self.last = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.ModuleList([nn.Linear(4, 4) for _ in range(count)])

    def forward(self, x):
        scale = self.temperature.exp()  # used before any layer, and meets the data after all of them
        for layer in reversed(self.inner):
            x = torch.tanh(layer(x))
        return self.last(self.norm(x)) * scale


def test_a_reversed_registration_and_scalars_of_the_loss():
    def objective(model, batch):
        penalty = sum(p.square().sum() for p in model.parameters())  # in the order of registration, before the model
        error = (model(batch[0]) - batch[1]).square().mean()
        return 1e-3 * penalty + error * (-model.log_variance).exp() + model.log_variance

    names, depths = _seen(Reversed(), torch.randn(2, 4), objective=objective)
    inner = [f"inner.{index}" for index in (4, 3, 2, 1, 0)]
    assert names == [*inner, "norm", "last", "temperature", "log_variance"]
    assert depths == {name: place for place, name in enumerate([*inner, "last"], start=1)}


class Branches(nn.Module):
    """A shortcut and a short branch beside a main path of two convolutions; the head counts third."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.short = nn.Conv2d(1, 4, 1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.aside = nn.Linear(4, 3)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        inner = F.relu(self.norm(self.first(x)))
        y = F.relu(self.second(inner) + self.short(x))
        return self.head(y.mean((2, 3))) + self.aside(inner.mean((2, 3)))


def test_shortcuts_and_short_branches_have_no_depth():
    names, depths = _seen(Branches(), torch.randn(2, 1, 4, 4))
    assert names == ["first", "norm", "second", "short", "head", "aside"]
    assert depths == {"first": 1, "second": 2, "head": 3}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.v, self.k, self.q = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.out(F.scaled_dot_product_attention(q, k, v)).mean(1)


def test_parallel_layers_of_one_length_share_a_depth():
    names, depths = _seen(Attention(), torch.randn(2, 5, 4))
    assert names == ["q", "k", "v", "out"]
    assert depths == {"q": 1, "k": 1, "v": 1, "out": 2}


class Tied(nn.Module):
    """The output layer is registered first, and is the table that is used first."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3, bias=False)
        self.mix = nn.Linear(4, 4)
        self.table = nn.Embedding(3, 4)
        self.table.weight = self.out.weight

    def forward(self, tokens):
        return self.out(torch.tanh(self.mix(self.table(tokens))))


def test_a_tied_layer_counts_where_it_is_used_first():
    names, depths = _seen(Tied(), torch.tensor([0, 2]))
    assert names == ["out", "mix"]
    assert depths == {"out": 1, "mix": 2}


class Twice(nn.Module):
    """A layer that both branches share, another that follows it in one of them."""

    def __init__(self):
        super().__init__()
        self.out, self.then, self.shared = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, a, b):
        return self.out(self.shared(a) + self.then(self.shared(b)))


def test_a_shared_layer_in_two_branches():
    names, depths = _seen(Twice(), torch.randn(2, 4), torch.randn(2, 4))
    assert names == ["shared", "then", "out"]
    assert depths == {"shared": 1, "then": 2, "out": 3}


class Odd(torch.autograd.Function):
    """No function of torch's makes its result: only the graph tells that it depends on parameters."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx, g):
        return g


class Derived(nn.Module):
    """Weights that are made of parameters, activations that are no functions of torch's, recomputed parts."""

    def __init__(self):
        super().__init__()
        self.d = nn.Linear(4, 3)
        self.c = nn.LSTM(4, 4, batch_first=True)
        self.b = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.a = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))

    def forward(self, x):
        y = checkpoint(self.b, Odd.apply(self.a(x)), use_reentrant=False)
        return self.d(self.c(y)[0][:, -1])


def test_derived_weights_custom_functions_and_recurrent_layers():
    names, depths = _seen(Derived(), torch.randn(2, 5, 4))
    assert [name for name in names if "parametrizations" in name or name in "cd"] == [
        "a.parametrizations.weight",
        "b.parametrizations.weight",
        "c",
        "d",
    ]
    assert depths == {"a.parametrizations.weight": 1, "b.parametrizations.weight": 2, "c": 3, "d": 4}


class Written(nn.Module):
    """A short branch is written into a tensor that was made for it, after a long branch was passed."""

    def __init__(self):
        super().__init__()
        self.last, self.short = nn.Linear(4, 3), nn.Linear(4, 4)
        self.long = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))

    def forward(self, x):
        y = self.long(x)
        place = torch.zeros(2, 4)
        place[:, :] = self.short(x)
        return y + self.last(place)


def test_what_is_written_in_place_is_followed():
    names, depths = _seen(Written(), torch.randn(2, 4))
    assert names == ["long.0", "long.1", "long.2", "short", "last"]
    assert depths == {"long.0": 1, "long.1": 2, "long.2": 3}


class Vectors(nn.Module):
    """Weights and biases are parameters of the model itself."""

    def __init__(self):
        super().__init__()
        self.phi = nn.Tanh()
        self.c, self.b, self.a, self.w = (nn.Parameter(torch.randn(n)) for n in ((3,), (4,), (4, 4), (3, 4)))

    def forward(self, x):
        return F.linear(self.phi(F.linear(x, self.a, self.b)), self.w, self.c)


def test_a_bias_of_its_own_adds_no_depth():
    names, depths = _seen(Vectors(), torch.randn(2, 4))
    assert names == ["a", "b", "w", "c"]
    assert depths == {"a": 1, "w": 2}


def test_an_encoder_counts_both_matrices_of_its_attention():
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    names, depths = _seen(
        nn.Sequential(nn.TransformerEncoder(layer, 1), nn.Linear(4, 3)),
        torch.randn(2, 5, 4),
        target=torch.zeros(2, 5, 3),
    )
    assert list(depths.values()) == [1, 2, 3, 4, 5]
    assert [name.rpartition(".")[2] for name in depths] == ["self_attn", "out_proj", "linear1", "linear2", "1"]
    assert len(names) == 7


def test_data_that_the_objective_makes_itself():
    """No batch, as for a differential equation: points are drawn in the objective."""
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    problem = Problem(model, [None], objective=lambda m, _: m(torch.linspace(0, 1, 5)[:, None]).square().mean())
    assert problem.depths == (1, 2)


@pytest.mark.parametrize("kind", ["scripted", "unused"])
def test_what_is_not_seen_keeps_its_place(kind):
    if kind == "scripted":
        model = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)))
        assert _seen(model, torch.randn(2, 4))[0] == ["0", "2"]
    else:
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
        names, depths = _seen(model, torch.randn(2, 4), objective=lambda m, b: m[2](b[0]).square().sum())
        assert (names, depths) == (["2", "0"], {"2": 1})


def test_the_parameter_vector_stays_in_the_order_of_registration():
    problem = Problem(Reversed(), data=[(torch.randn(2, 4), torch.zeros(2, 3))], loss="mse")
    names = [layer.name for layer in problem.layer_slices]
    assert names[:2] == ["temperature", "log_variance"]
    assert sorted(problem.executed_layers, key=lambda layer: layer.start) == list(problem.layer_slices)
    assert not any(hasattr(tensor, "_signal") for tensor in problem.parameters)
