"""Layers, nonlinearities and depths are seen in every kind of network: by modules, by functions, by lone parameters."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.watch import passed
from hessdiag.questions.check.watching.signals import MOST

F64 = torch.float64
Y = torch.arange(12) % 5


def layers(model, batch, loss="ce", **options):
    torch.manual_seed(0)
    return passed(Problem(model, data=[batch], loss=loss, **options), seed=0)[0].layers


def seen(model, batch, *what, **options):
    return [tuple(getattr(layer, name) for name in ("layer", *what)) for layer in layers(model, batch, **options)]


class Functional(nn.Module):
    """Parameters that are used as they are, with functions for nonlinearities."""

    def __init__(self, function):
        super().__init__()
        self.first, self.shift = nn.Parameter(torch.randn(8, 16) * 0.3), nn.Parameter(torch.zeros(16))
        self.second = nn.Parameter(torch.randn(5, 16) * 0.3)
        self.function = function

    def forward(self, x):
        return F.linear(self.function(x @ self.first + self.shift), self.second)


FUNCTIONS = {
    "relu": torch.relu,
    "relu in place": lambda x: x.relu_(),
    "relu by clamp": lambda x: x.clamp(min=0),
    "relu6": F.relu6,
    "tanh": lambda x: x.tanh(),
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "hardtanh": F.hardtanh,
    "softmax": lambda x: x.softmax(-1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nonlinearities_by_functions(name):
    model = Functional(FUNCTIONS[name])
    first, second = layers(model, (torch.randn(12, 8), Y))
    assert (first.layer, first.kind, first.fan_in, first.units, first.depth) == ("first", "Parameter", 8, 16, 1)
    assert (second.layer, second.fan_in, second.units, second.depth) == ("second", 16, 5, 2)
    assert (first.activation, second.activation) == (name.split()[0], None)
    assert first.parameters == 8 * 16 + 16
    assert first.bias_rms == 0.0


def test_a_lone_bias_belongs_to_the_product_that_it_is_added_to():
    torch.manual_seed(1)
    model = Functional(torch.relu).double()
    nn.init.normal_(model.shift)
    x = torch.randn(12, 8, dtype=F64)
    first, _ = layers(model, (x, Y))
    put = x @ model.first + model.shift
    assert first.output_rms == pytest.approx(float(put.detach().square().mean().sqrt()), rel=1e-9)
    assert first.signal_rms == pytest.approx(float(put.detach().relu().square().mean().sqrt()), rel=1e-9)
    assert first.bias_mean == pytest.approx(float(model.shift.mean()), rel=1e-9)


MODULES = {
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(),
    "prelu": nn.PReLU(16),
    "celu": nn.CELU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "softsign": nn.Softsign(),
    "glu": nn.GLU(),
}


@pytest.mark.parametrize("name", MODULES)
def test_nonlinearities_by_modules(name):
    width = 8 if name == "glu" else 16
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), MODULES[name], nn.Linear(width, 5))
    assert layers(model, (torch.randn(12, 8), Y))[0].activation == name


class ByHand(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))), "gelu"),
        (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "gelu"),
        (lambda x: x / (1 + (-x).exp()), "silu"),
        (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), "relu"),
        (lambda x: x * x, None),
        (lambda x: 1.5 * x, None),
    ],
)
def test_nonlinearities_written_by_hand_in_a_module(function, name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), ByHand(function), nn.Linear(16, 5)).double()
    x = torch.randn(12, 8, dtype=F64)
    first = layers(model, (x, Y))[0]
    assert first.activation == name
    if name is not None:
        left = model[:2](x).detach()
        assert first.signal_rms == pytest.approx(float(left.square().mean().sqrt()), rel=1e-9)


def test_a_product_with_its_own_sigmoid_is_no_sigmoid():
    own = Functional(lambda x: x * torch.sigmoid(x))
    with torch.no_grad():
        own.first.mul_(30)
        own.shift[:4] = -1000.0
    first, _ = layers(own, (torch.randn(12, 8), Y))
    assert (first.activation, first.saturated_fraction, first.dead_fraction) == ("silu", 0.0, 4 / 16)
    gated = Functional(lambda x: (x[:, :8] * torch.sigmoid(x[:, 8:])).repeat(1, 2))
    assert layers(gated, (torch.randn(12, 8), Y))[0].activation == "sigmoid"


def test_convolutions_of_all_kinds():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.GELU(),
        nn.ConvTranspose2d(8, 6, 4, stride=2, groups=2),
        nn.GroupNorm(2, 6),
        nn.Flatten(),
        nn.Tanh(),
        nn.LazyLinear(5),
    )
    batch = torch.randn(12, 3, 8, 8), Y
    model(batch[0])
    what = ("activation", "normalized", "fan_in", "units", "depth")
    assert seen(model, batch, *what) == [
        ("0", "relu", True, 27, 8, 1),
        ("1", "relu", False, None, 8, None),
        ("3", "gelu", False, 9, 8, 2),
        ("5", "tanh", True, 16, 6, 3),
        ("6", "tanh", False, None, 6, None),
        ("9", None, False, 600, 5, 4),
    ]


def test_a_dead_channel_behind_a_normalization_is_that_of_the_normalization():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    nn.init.constant_(model[1].bias, 0.0)
    model[1].bias.data[:3] = -20.0
    conv, norm, _ = layers(model, (torch.randn(12, 3, 8, 8), Y))
    assert (conv.dead_fraction, norm.dead_fraction) == (0.0, 3 / 8)


def test_a_unit_that_lives_in_one_place_of_many_is_not_dead():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.zeros_(model[0].bias)
    model[0].bias.data[3] = -100.0
    x = torch.full((12, 1, 101, 101), -1.0)
    x[5, 0, 50, 33] = 2.0
    assert x.numel() * 4 > 2 * MOST
    assert layers(model, (x, Y))[0].dead_fraction == 1 / 4


def test_a_normalization_counts_only_if_nothing_else_takes_the_output():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 5)

        def forward(self, x):
            h = self.inner(x)
            return self.head(h + self.norm(h))

    assert seen(Block(), (torch.randn(12, 8), Y), "normalized")[0] == ("inner", False)
    plain = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8, elementwise_affine=False), nn.ReLU(), nn.Linear(8, 5))
    assert seen(plain, (torch.randn(12, 8), Y), "normalized", "activation")[0] == ("0", True, "relu")


class Recurrent(nn.Module):
    def __init__(self, kind, batch_first=True):
        super().__init__()
        self.cell, self.head, self.first = kind(8, 6, batch_first=batch_first), nn.Linear(6, 5), batch_first

    def forward(self, x):
        out, _ = self.cell(x)
        return self.head(out[:, -1] if self.first else out[-1])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("steps", [7, 12])  # as many as there are samples, too
def test_recurrent_layers_with_time_first_or_second(kind, steps):
    torch.manual_seed(0)
    x = torch.randn(12, steps, 8, dtype=F64)
    found = [
        layers(model, (data, Y))
        for first in (True, False)
        for model in [_same(Recurrent(kind, first).double())]
        for data in [x if first else x.transpose(0, 1)]
    ]
    for one, other in zip(*found, strict=True):
        assert one.output_rms == pytest.approx(other.output_rms, rel=1e-9)
        assert one.output_variation == pytest.approx(other.output_variation, rel=1e-9)
        assert one.input_variation == pytest.approx(other.input_variation, rel=1e-9)
    assert [(layer.layer, layer.fan_in, layer.units, layer.depth) for layer in found[0]] == [
        ("cell", 14, 6, 1),
        ("head", 6, 5, 2),
    ]


def _same(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=F64))
    return model


def test_a_layer_that_is_called_several_times_is_read_at_its_last_call():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.head = nn.Linear(4, 4), nn.Linear(4, 5)

        def forward(self, x):
            for _ in range(3):
                x = torch.tanh(self.step(x))
            return self.head(x)

    model, x = Cell().double(), torch.randn(12, 4, dtype=F64)
    step, _ = layers(model, (x, Y))
    before = torch.tanh(model.step(torch.tanh(model.step(x)))).detach()
    assert (step.calls, step.activation) == (3, "tanh")
    assert step.input_rms == pytest.approx(float(before.square().mean().sqrt()), rel=1e-9)
    cells = nn.GRUCell(4, 6)

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = cells, nn.Linear(6, 5)

        def forward(self, x):
            h = torch.zeros(len(x), 6)
            for part in x.unbind(1):
                h = self.cell(part, h)
            return self.head(h)

    assert seen(Loop(), (torch.randn(12, 3, 4), Y), "calls", "fan_in") == [("cell", 3, 10), ("head", 1, 6)]


def test_tied_weights_are_read_where_each_is_used():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inner, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(self.inner(self.table(x)).relu())

    tokens = torch.randint(9, (12, 3))
    table, inner, head = layers(Tied(), (tokens, tokens))
    assert [one.layer for one in (table, inner, head)] == ["table", "inner", "head"]
    assert (table.fan_in, head.fan_in, inner.activation) == (None, 4, "relu")
    assert table.gradient_rms == head.gradient_rms
    assert all(one.reached for one in (table, inner, head))


@pytest.mark.parametrize("train", [True, False])
def test_a_transformer_encoder_is_seen_layer_by_layer(train):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return self.head(self.body(x).mean(1))

    model = Encoder().train(train).requires_grad_(False)
    model.head.requires_grad_(True)
    found = seen(model, (torch.randn(12, 6, 8), Y), "activation", "depth", "trainable")
    assert found == [
        ("body.layers.0.self_attn", None, 1, False),
        ("body.layers.0.self_attn.out_proj", None, 2, False),
        ("body.layers.0.norm1", None, None, False),
        ("body.layers.0.linear1", "relu", 3, False),
        ("body.layers.0.linear2", None, 4, False),
        ("body.layers.0.norm2", None, None, False),
        ("head", None, 5, True),
    ]


def test_attention_and_positions():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.randn(6, 8))
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

        def forward(self, x):
            x = x + self.places
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    places, taking, giving, _ = layers(Attending(), (torch.randn(12, 6, 8), Y))
    assert (places.layer, places.kind, places.fan_in, places.reached) == ("places", "Parameter", None, True)
    assert (taking.layer, taking.fan_in, taking.output_rms) == ("attention", 8, None)
    assert (giving.layer, giving.fan_in, giving.input_rms) == ("attention.out_proj", 8, None)
    assert taking.input_rms is not None
    assert giving.output_rms is not None


def test_weights_that_are_made_of_parameters():
    torch.manual_seed(0)
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 16))
    weight = nn.utils.parametrizations.weight_norm(nn.Linear(16, 5, bias=False))
    model = nn.Sequential(spectral, nn.ReLU(), weight).eval().double()
    first, second = layers(model, (torch.randn(12, 8, dtype=F64), Y))
    assert (first.layer, first.fan_in, first.activation, first.depth) == ("0", 8, "relu", 1)
    assert (second.layer, second.fan_in, second.parameters, second.depth) == ("2", 16, 5 * 16 + 5, 2)
    assert first.weight_rms == pytest.approx(float(spectral.weight.detach().square().mean().sqrt()), rel=1e-9)
    assert second.weight_rms == pytest.approx(float(weight.weight.detach().square().mean().sqrt()), rel=1e-9)


def test_a_matrix_right_of_its_input():
    class Turned(nn.Module):
        """As in the GPT-2 of a well-known library."""

        def __init__(self, inputs, units):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(inputs, units) * 0.1), nn.Parameter(torch.zeros(units))

        def forward(self, x):
            return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)

    model = nn.Sequential(Turned(8, 8), nn.GELU(), nn.Flatten(), nn.Linear(24, 5))
    model[0].weight.data[:, 1] = model[0].weight.data[:, 0]
    first, _ = layers(model, (torch.randn(12, 3, 8), Y))
    assert (first.layer, first.kind, first.fan_in, first.units) == ("0", "Turned", 8, 8)
    assert (first.activation, first.identical_fraction) == ("gelu", 1 / 8)


@pytest.mark.parametrize("width", [8, 6])
def test_a_matrix_that_is_turned_by_the_way(width):
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Parameter(torch.randn(width, 8)), nn.Parameter(torch.randn(width, 5))
            self.inner.data[1] = self.inner.data[0]

        def forward(self, x):
            return F.linear((x @ self.inner.t()).tanh(), self.outer.T, torch.zeros(5))

    found = seen(Turning(), (torch.randn(12, 8), Y), "fan_in", "units", "identical_fraction")
    assert found == [("inner", 8, width, 1 / width), ("outer", width, 5, 0.0)]


def test_a_layer_whose_function_is_not_seen_is_read_off_its_module():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx, slope):
            x, weight = ctx.saved_tensors
            return slope @ weight, slope.T @ x

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 8, dtype=F64))

        def forward(self, x):
            return Hidden.apply(x, self.weight)

    model, x = nn.Sequential(Layer(), nn.ReLU(), nn.Linear(6, 5).double()), torch.randn(12, 8, dtype=F64)
    first, _ = layers(model, (x, Y))
    put = (x @ model[0].weight.T).detach()
    assert (first.layer, first.calls, first.activation, first.fan_in) == ("0", 1, "relu", 8)
    assert first.output_rms == pytest.approx(float(put.square().mean().sqrt()), rel=1e-9)
    assert first.signal_rms == pytest.approx(float(put.relu().square().mean().sqrt()), rel=1e-9)


def test_models_that_return_several_tensors_or_their_own_loss():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.unused = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(3, 3)

        def forward(self, x, labels=None):
            hidden = self.body(x).relu()
            logits = self.head(hidden)
            if labels is None:
                return logits, hidden
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    x = torch.randn(12, 8)
    what = ("depth", "calls", "reached")
    expected = [("body", 1, 1, True), ("head", 2, 1, True), ("unused", None, 0, False)]
    assert seen(Several(), (x, Y), *what) == expected
    batch = {"x": x, "labels": Y}
    assert seen(Several(), batch, *what, loss="output") == expected
    found = passed(Problem(Several(), data=[batch], loss="output"), seed=0)[0]
    assert found.output.chance == pytest.approx(math.log(12) - (6 * math.log(3) + 6 * math.log(2)) / 12)
    assert any("unused" in what for what in found.not_looked_at)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_networks(dtype):
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 5)).to(dtype)
    x = torch.randn(12, 8).to(dtype)
    first, second = layers(model, (x, Y))
    out = model[0](x).detach()
    assert first.output_rms == pytest.approx(float(out.double().square().mean().sqrt()), rel=1e-9)
    assert second.gradient_rms > 0


def test_parameters_of_a_layer_that_are_partly_frozen():
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)).double()
    model[0].weight.requires_grad_(False)
    x = torch.randn(12, 8, dtype=F64)
    first, _ = layers(model, (x, Y))
    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), Y), model[0].bias)
    assert (first.trainable, first.reached, first.parameters) == (True, True, 54)
    assert first.gradient_rms == pytest.approx(float(slope.square().mean().sqrt()), rel=1e-9)
