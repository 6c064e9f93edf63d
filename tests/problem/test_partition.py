"""Partitions of the parameters: by layer, tensor, neuron and pattern, against sets of names counted by hand."""

import pytest
import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.partition import partition
from hessdiag.problem.problem import Problem


def _problem(model, x, **options):
    with torch.no_grad():
        y = torch.zeros_like(model(x))
    return Problem(model, data=[(x, y)], loss="mse", **options)


def _blocks(problem, by):
    """The names of a partition with the entries of each, once it is known to be one."""
    parts = partition(problem, by)
    assert torch.equal(torch.cat(parts.indices).sort().values, torch.arange(problem.n_parameters))
    for number, block in enumerate(parts.indices):
        assert block.dtype == torch.int64
        assert bool((block[1:] > block[:-1]).all())
        assert bool((parts.labels[block] == number).all())
    assert len(parts.names) == len(set(parts.names)) == len(parts.kinds) == len(parts.indices)
    assert parts.sizes == tuple(len(block) for block in parts.indices)
    return dict(zip(parts.names, parts.indices, strict=True)), parts


def _moved(problem, indices):
    """The parameters by name, as they are with 1 added to some entries of the parameter vector."""
    flat = torch.zeros(problem.n_parameters)
    flat[indices] = 1
    sizes = [parameter.numel() for parameter in problem.parameters]
    pairs = zip(problem.named_parameters, flat.split(sizes), strict=True)
    return {name: parameter.detach() + more.reshape(parameter.shape) for (name, parameter), more in pairs}


class Late(nn.Module):
    """Registered in another order than it is executed in."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(3)
        self.first = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.first(x)))) * self.scale


def test_layers_and_tensors_come_as_they_are_executed():
    problem = _problem(Late(), torch.randn(5, 4))  # vector: scale 0-1, last 2-9, norm 10-15, first 16-30
    blocks, parts = _blocks(problem, "layer")
    assert list(blocks) == ["first", "norm", "last", "scale"]
    assert parts.kinds == ("Linear", "LayerNorm", "Linear", "Parameter")
    assert [block[0].item() for block in parts.indices] == [16, 10, 2, 0]
    assert parts.notes == ()
    blocks, parts = _blocks(problem, "tensor")
    assert list(blocks) == [
        "first.weight",
        "first.bias",
        "norm.weight",
        "norm.bias",
        "last.weight",
        "last.bias",
        "scale",
    ]
    assert parts.sizes == (12, 3, 3, 3, 6, 2, 2)


UNITS = {
    "linear": (nn.Linear(3, 4), torch.randn(5, 3), 4),
    "no bias": (nn.Linear(3, 4, bias=False), torch.randn(5, 3), 4),
    "conv": (nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5), 6),
    "conv1d": (nn.Conv1d(2, 3, 2), torch.randn(2, 2, 5), 3),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, groups=2), torch.randn(2, 4, 3, 3), 6),
    "transposed, one group": (nn.ConvTranspose1d(2, 3, 2), torch.randn(2, 2, 3), 3),
}


@pytest.mark.parametrize("name", UNITS)
def test_a_neuron_moves_its_own_output_alone(name):
    model, x, units = UNITS[name]
    problem = _problem(model, x)
    blocks, parts = _blocks(problem, "neuron")
    assert len(blocks) == units
    assert set(parts.kinds) == {"neuron"}
    before = model(x)
    for unit, indices in enumerate(parts.indices):
        after = torch.func.functional_call(model, _moved(problem, indices), x)
        changed = (after - before).abs().movedim(1, 0).flatten(1).amax(1) > 1e-6
        assert changed.nonzero().flatten().tolist() == [unit]


def test_units_of_a_weight_that_is_kept_turned():
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D(4, 3)  # from 3 to 4: its weight is (3, 4)
    blocks, _ = _blocks(_problem(layer, torch.randn(5, 3)), "neuron")
    assert blocks["Conv1D[1]"].tolist() == [1, 5, 9, 13]
    assert len(blocks) == 4


def test_units_of_a_bilinear_layer():
    model = nn.Bilinear(2, 3, 4)
    problem = Problem(model, data=[((torch.randn(5, 2), torch.randn(5, 3)), torch.zeros(5, 4))], loss="mse")
    assert _blocks(problem, "neuron")[1].sizes == (7, 7, 7, 7)


@pytest.mark.parametrize("options", [{}, {"kdim": 3, "vdim": 5}])
def test_units_of_torch_attention(options):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(4, 2, batch_first=True, **options)

        def forward(self, x):
            q, k, v = (x[..., :size] for size in (4, options.get("kdim", 4), options.get("vdim", 4)))
            return self.attn(q, k, v)[0]

    model = Model()
    blocks, parts = _blocks(_problem(model, torch.randn(2, 3, 6)), "neuron")
    assert list(blocks)[:5] == ["attn.q[0]", "attn.q[1]", "attn.q[2]", "attn.q[3]", "attn.k[0]"]
    assert parts.notes == ()
    sizes = [1 + size for size in (4, options.get("kdim", 4), options.get("vdim", 4), 4)]
    assert [len(blocks[f"attn.{name}[3]"]) for name in ("q", "k", "v", "out_proj")] == sizes
    names = {f"attn.{name}": value for name, value in model.attn.named_parameters()}
    start = 0
    for name, value in names.items():  # of key 2 the bias is entry 4 + 2 of the fused one
        if name == "attn.in_proj_bias":
            assert start + 6 in blocks["attn.k[2]"].tolist()
        start += value.numel()


def test_what_is_no_neuron_is_a_block_of_its_own_and_said():
    parts = partition(_problem(Late(), torch.randn(5, 4)), "neuron")
    assert parts.names == (
        "first[0]",
        "first[1]",
        "first[2]",
        "norm.weight",
        "norm.bias",
        "last[0]",
        "last[1]",
        "scale",
    )
    assert parts.kinds[3:5] == ("LayerNorm", "LayerNorm")
    assert parts.notes == (
        "8 parameters are in 3 tensors that belong to no neuron and are blocks of their own: norm.weight, norm.bias, scale",
    )


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


def test_tied_weights_count_once():
    blocks, parts = _blocks(_problem(Tied(), torch.randn(5, 3)), "neuron")
    assert parts.sizes == (4, 4, 4, 1, 1, 1)
    assert list(blocks)[3:] == ["two[0]", "two[1]", "two[2]"]
    assert parts.notes == ("two and one share a weight: it counts once, for one",)


def test_frozen_and_unlisted_parameters_are_not_there():
    model = Late()
    model.first.weight.requires_grad_(False)
    assert _blocks(_problem(model, torch.randn(5, 4)), "neuron")[1].sizes[:3] == (1, 1, 1)
    assert _blocks(_problem(Late(), torch.randn(5, 4), layers="last"), "layer")[1].names == ("last",)
    assert _blocks(_problem(nn.Linear(2, 2), torch.randn(5, 2)), "layer")[1].names == ("Linear",)


def test_patterns_take_parameters_layers_and_what_they_are_in():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), nn.Linear(3, 4), nn.LayerNorm(4))
    problem = _problem(model, torch.randn(5, 2))
    blocks, parts = _blocks(problem, "0, 1.weight ,?.bias")  # "0" is a module around a layer
    assert list(blocks) == ["0", "1.weight", "?.bias", "rest"]
    assert parts.sizes == (9, 12, 8, 4)
    assert blocks["?.bias"].tolist() == [21, 22, 23, 24, 29, 30, 31, 32]
    assert parts.kinds == ("pattern", "pattern", "pattern", "rest")
    assert parts.by == "0,1.weight,?.bias"
    assert parts.notes == ("the block rest holds what no pattern matches: 1 tensor, 4 parameters",)
    assert _blocks(problem, ["0", "1", "2"])[1].notes == ()
    assert _blocks(_problem(nn.Linear(2, 2), torch.randn(5, 2)), "Linear")[1].sizes == (6,)


def test_rest_comes_last():
    names = partition(_problem(Late(), torch.randn(5, 4)), "scale,norm").names
    assert names == ("norm", "scale", "rest")


WRONG = {
    "laier": (
        "'laier' is no word that is known, and matches no trainable parameter or module. Did you mean layer?",
        "'scale'",
    ),
    "frist.weight": ("Did you mean first.weight?", "layer|tensor"),
    "zzz*": ("'zzz*' is no word that is known", "layer|tensor"),
    "last,*.weight": ("last.weight is in two blocks, 'last' and '*.weight'", "--by last"),
    "last,layer": ("in a list 'layer' is a pattern of names, and it matches no parameter or module", "--by layer"),
    "": ("'' is no word", "layer|tensor"),
}


@pytest.mark.parametrize("by", WRONG)
def test_what_is_wrong_is_said_in_a_line(by):
    with pytest.raises(SpecError) as error:
        partition(_problem(Late(), torch.randn(5, 4)), by)
    what, hint = WRONG[by]
    assert what in error.value.what
    assert hint in error.value.hint
    assert "\n" not in error.value.what


def test_a_module_may_be_called_as_a_word_is():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "tail": nn.Linear(2, 2)})

    def objective(model, batch):
        return model["head"](model["tail"](batch)).sum()

    parts = partition(Problem(model, data=[torch.zeros(1, 2)], objective=objective), "head,tail")
    assert parts.names == ("tail", "head")
