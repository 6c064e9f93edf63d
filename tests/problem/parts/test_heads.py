"""The heads of attention: changing what one block holds changes that head's slice of what the output layer takes alone.

The slices are counted here from the number of heads, and the output layer is named; where the blocks lie in fused and
transposed weights is never said.
"""

import importlib
import re
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag.errors import ComputeError, SpecError
from hessdiag.nets.gpt import GPT
from hessdiag.problem.partition import partition
from hessdiag.problem.problem import Problem

IDS = torch.randint(3, 30, (2, 5), generator=torch.Generator().manual_seed(1))
PIXELS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
STREAM = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
CASES = {}


def case(name, output, *, heads=3, shared=None, inputs=None):
    """An attention of so many heads of queries and, if they are shared, of keys and values.

    Args:
        name: Of the case; the package that it needs, if any, comes first.
        output: Regular expression of the names of output layers, one for each attention.
        heads: Of queries.
        shared: Heads of keys and values.
        inputs: Keyword arguments of the model.
    """

    def add(make):
        CASES[name] = (make, output, heads, shared or heads, inputs)
        return make

    return add


def hugging(name, output, *, heads=3, shared=None, model=None, inputs=None, **config):
    """A model of transformers, by the name of its class."""

    @case(f"transformers {name}", output, heads=heads, shared=shared, inputs=inputs or {"input_ids": IDS})
    def make():
        library = importlib.import_module("transformers")
        kind = model or name
        settings = getattr(library, re.sub("Model$", "Config", kind))(**config)
        return getattr(library, kind)(settings)


LLAMA = {"vocab_size": 30, "hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 16, "pad_token_id": 0}
GPT2 = {"vocab_size": 30, "n_embd": 12, "n_layer": 1, "n_head": 3, "n_positions": 8}
hugging("GPT2Model", r"attn\.c_proj", **GPT2)
hugging("LlamaModel", "o_proj", heads=6, shared=2, num_attention_heads=6, num_key_value_heads=2, head_dim=4, **LLAMA)
hugging("Phi3Model", "o_proj", heads=6, shared=2, num_attention_heads=6, num_key_value_heads=2, **LLAMA)
hugging("BertModel", r"attention\.output\.dense", num_attention_heads=3, **LLAMA)
hugging("GPTNeoXModel", r"attention\.dense", num_attention_heads=3, **LLAMA)
hugging("BloomModel", r"attention\.dense", vocab_size=30, hidden_size=12, n_layer=1, n_head=3)
FALCON = {"vocab_size": 30, "num_hidden_layers": 1}
hugging("FalconModel", r"attention\.dense", shared=1, hidden_size=12, num_attention_heads=3, **FALCON)
MORE = {"model": "FalconModel", "hidden_size": 24, "num_attention_heads": 6, **FALCON}
hugging("Falcon of one each", r"attention\.dense", heads=6, multi_query=False, **MORE)
hugging(
    "Falcon of groups", r"attention\.dense", heads=6, shared=2, num_kv_heads=2, new_decoder_architecture=True, **MORE
)
T5 = {"vocab_size": 30, "d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 3}
hugging("T5Model", r"Attention\.o", inputs={"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}, **T5)
hugging("DistilBertModel", "out_lin", vocab_size=30, dim=12, n_layers=1, n_heads=3, hidden_dim=16)
hugging("GPTBigCodeModel", r"attn\.c_proj", shared=1, **GPT2)
hugging("CodeGenModel", r"attn\.out_proj", heads=4, **{**GPT2, "n_embd": 16, "n_head": 4}, rotary_dim=2)
VIT = {"image_size": 8, "patch_size": 4, "hidden_size": 12, "num_hidden_layers": 1, "intermediate_size": 16}
hugging("ViTModel", r"attention\.output\.dense|o_proj", inputs={"pixel_values": PIXELS}, num_attention_heads=3, **VIT)


@case("timm ViT", r"attn\.proj", inputs={"x": PIXELS})
def _():
    library = importlib.import_module("timm.models.vision_transformer")
    return library.VisionTransformer(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=4)


@case("timm Swin", r"attn\.proj", inputs={"x": PIXELS})
def _():
    library = importlib.import_module("timm.models.swin_transformer")
    sizes = {"img_size": 8, "patch_size": 1, "embed_dim": 12, "window_size": 4, "num_classes": 4}
    return library.SwinTransformer(depths=(1,), num_heads=(3,), **sizes)


@case("timm BEiT", r"attn\.proj", inputs={"x": PIXELS})
def _():
    library = importlib.import_module("timm.models.beit")
    return library.Beit(img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=3, num_classes=4)


@case("GPT", "out_proj", heads=2, inputs={"tokens": IDS})
def _():
    return GPT(layers=2, width=12, heads=2, vocabulary=32, context=8, mlp_ratio=1, dtype=torch.float32)


class Fused(nn.Module):
    """As nanoGPT has it: one linear layer for queries, keys and values of all heads."""

    def __init__(self):
        super().__init__()
        self.n_head = 3
        self.c_attn, self.c_proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in self.c_attn(x).split(12, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Pairs(nn.Module):
    """Queries in one layer, keys and values in another, the output layer within a sequence, products by einsum."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_kv = nn.Linear(12, 12, bias=False), nn.Linear(12, 24, bias=False)
        self.to_out = nn.Sequential(nn.Linear(12, 12), nn.Dropout(0.5))

    def forward(self, x):
        q = self.to_q(x).unflatten(-1, (3, 4))
        k, v = (part.unflatten(-1, (3, 4)) for part in self.to_kv(x).chunk(2, dim=-1))
        weights = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return self.to_out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))


@case("nanoGPT", "c_proj", inputs={"x": STREAM})
def _():
    return nn.ModuleDict({"attn": Fused()})["attn"]


@case("keys and values in one", r"to_out\.0", inputs={"x": STREAM})
def _():
    return Pairs()


def _of_case(name):
    """A problem, names of the attentions' output layers, and how many heads there are."""
    make, output, heads, shared, inputs = CASES[name]
    library = name.split()[0]
    if library in ("transformers", "timm"):
        pytest.importorskip(library, exc_type=ImportError)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3  # biases too, and no small scale

    def objective(model, batch):
        result = model(**batch)
        return getattr(result, "last_hidden_state", result).square().mean()

    names = [path for path, _ in model.named_modules() if re.search(f"({output})$", path)]
    assert names
    return Problem(model, data=[inputs], objective=objective), names, heads, shared


@contextmanager
def _changed(problem, block):
    """With random numbers added to some entries of the parameter vector."""
    flat = torch.zeros(problem.n_parameters)
    flat[block] = torch.randn(len(block), generator=torch.Generator().manual_seed(0))
    before = [parameter.detach().clone() for parameter in problem.parameters]
    sizes = [parameter.numel() for parameter in problem.parameters]
    for parameter, more in zip(problem.parameters, flat.split(sizes), strict=True):
        parameter.data += more.reshape(parameter.shape)
    try:
        yield
    finally:
        for parameter, kept in zip(problem.parameters, before, strict=True):
            parameter.data = kept


def _taken(problem, output, block=()):
    """What an output layer takes, (tokens, inputs), once some entries of the parameter vector are changed."""
    seen = []
    handle = problem.model.get_submodule(output).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with _changed(problem, torch.as_tensor(block, dtype=torch.int64)), torch.no_grad():
        problem.model(**problem.data[0])
    handle.remove()
    return seen[0].flatten(0, -2)


def _heads(parts):
    """The blocks of heads by name, without the other blocks."""
    known = zip(parts.names, parts.kinds, parts.indices, strict=True)
    return {name: block for name, kind, block in known if kind in "QKVO"}


@pytest.mark.parametrize("name", CASES)
def test_a_block_moves_its_own_head_alone(name):
    problem, outputs, heads, shared = _of_case(name)
    parts = partition(problem, "head")
    found = _heads(parts)
    modules = list(dict.fromkeys(label.rpartition(".")[0] for label in found))
    counts = {"Q": heads, "K": shared, "V": shared, "O": heads}
    assert list(found) == [
        f"{module}.{letter}[{n}]" for module in modules for letter in "QKVO" for n in range(counts[letter])
    ]
    assert len(modules) == len(outputs)
    for module, output in zip(modules, outputs, strict=True):
        before = _taken(problem, output)
        width = before.shape[1] // heads
        for letter in "QKV":
            group = heads // counts[letter]
            for number in range(counts[letter]):
                moved = (_taken(problem, output, found[f"{module}.{letter}[{number}]"]) - before).abs().amax(0) > 1e-5
                start = number * group * width
                assert moved.nonzero().flatten().tolist() == list(range(start, start + group * width))


@pytest.mark.parametrize("name", CASES)
def test_a_block_of_the_output_layer_reads_its_own_head_alone(name):
    problem, outputs, heads, _ = _of_case(name)
    found = _heads(partition(problem, "head"))
    modules = list(dict.fromkeys(label.rpartition(".")[0] for label in found))
    for module, output in zip(modules, outputs, strict=True):
        layer = problem.model.get_submodule(output)
        x = torch.randn(4, _taken(problem, output).shape[1])
        for head in range(heads):
            only = torch.zeros_like(x)
            slot = slice(head * x.shape[1] // heads, (head + 1) * x.shape[1] // heads)
            only[:, slot] = x[:, slot]
            block = found[f"{module}.O[{head}]"]
            with torch.no_grad():
                own, others = layer(only), layer(x - only)
                with _changed(problem, block):
                    assert bool((layer(only) != own).all())
                    assert torch.equal(layer(x - only), others)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_heads_are_in_heads_as_a_whole(name):
    problem, *_ = _of_case(name)
    parts = partition(problem, "head")
    inside = torch.tensor([kind in "QKVO" for kind in parts.kinds])[parts.labels]
    assert all(bool((inside[place] == inside[place.start]).all()) for place in problem.places())


TORCH = {
    "fused": {},
    "no bias": {"bias": False},
    "keys and values of other widths": {"kdim": 5, "vdim": 7},
    "a key and a value more": {"add_bias_kv": True},
    "sequence first": {"batch_first": False},
}


class OfTorch(nn.Module):
    def __init__(self, batch_first=True, **options):
        super().__init__()
        self.attn = nn.MultiheadAttention(12, 3, batch_first=batch_first, **options)

    def forward(self, x):
        attn = self.attn
        return attn(x, x[..., : attn.kdim], x[..., : attn.vdim], need_weights=False)[0]


@pytest.mark.parametrize("name", TORCH)
def test_torch_attention(name):
    model = OfTorch(**TORCH[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    problem = Problem(model, data=[(STREAM, torch.zeros_like(STREAM))], loss="mse")
    parts = partition(problem, "head")
    found = _heads(parts)
    assert list(found) == [f"attn.{letter}[{head}]" for letter in "QKVO" for head in range(3)]
    assert [n for n in parts.names if n not in found] == (["attn.out_proj.bias"] if "bias" not in TORCH[name] else [])
    own = {"attn.out_proj.weight": torch.eye(12)}  # then what attention puts out are its heads
    if "bias" not in TORCH[name]:
        own["attn.out_proj.bias"] = torch.zeros(12)
    before = torch.func.functional_call(model, own, STREAM)
    for label, block in found.items():
        with _changed(problem, block):
            after = torch.func.functional_call(model, own, STREAM)
        moved = (after - before).abs().flatten(0, -2).amax(0) > 1e-6
        head = int(label[7:-1])
        assert moved.nonzero().flatten().tolist() == ([] if "O" in label else list(range(4 * head, 4 * head + 4)))
    places = dict(zip([name for name, _ in problem.named_parameters], problem.places(), strict=True))
    rows = torch.arange(144).reshape(12, 12) + places["attn.out_proj.weight"].start
    assert all(torch.equal(found[f"attn.O[{h}]"], rows[:, 4 * h : 4 * h + 4].flatten()) for h in range(3))


class Small(nn.Module):
    """Attention of three heads, with what may hide them."""

    def __init__(self, *, norm=False, order=range(12), number=3, narrow=False, hidden=False):
        super().__init__()
        self.num_heads, self.width, self.order, self.hidden = number, 1 if narrow else 4, list(order), hidden
        self.query, self.key, self.value, self.dense = (nn.Linear(12, 12) for _ in range(4))
        self.norm = nn.LayerNorm(12) if norm else nn.Identity()

    def forward(self, x):
        q, k, v = (
            x @ layer.weight.clone().T if self.hidden else layer(x) for layer in (self.query, self.key, self.value)
        )
        q, k, v = (one.unflatten(-1, (-1, self.width)).transpose(-2, -3) for one in (self.norm(q), k, v))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(-2, -3)
        return self.dense(seen.flatten(-2)[..., self.order])


def _small(*attentions, x=STREAM, **options):
    model = nn.Sequential(*attentions)
    return Problem(model, data=[(x, torch.zeros_like(x))], loss="mse", **options)


class Wasteful(Small):
    """Its values have a channel that nobody reads."""

    def __init__(self):
        super().__init__()
        self.value = nn.Linear(12, 13)

    def forward(self, x):
        q, k, v = (
            one.unflatten(-1, (3, 4)).transpose(1, 2) for one in (self.query(x), self.key(x), self.value(x)[..., :12])
        )
        return self.dense(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Dropped(Small):
    """In training, half of what it weighs and half of its output are zero."""

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (3, 4)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        weights = F.dropout((q @ k.mT).softmax(-1), 0.5, self.training)
        return self.dense(F.dropout((weights @ v).transpose(1, 2).flatten(2), 0.5, self.training))


def test_dropout_does_not_hide_heads():
    model = Dropped()
    trained, still = (partition(_small(model, train_mode=mode), "head") for mode in (True, False))
    assert trained.names == still.names
    assert all(torch.equal(a, b) for a, b in zip(trained.indices, still.indices, strict=True))
    assert model.training


def test_a_norm_over_all_heads_does_not_hide_them():
    problem = _small(Small(norm=True))
    parts = partition(problem, "head")
    plain = partition(_small(Small()), "head")
    assert list(_heads(parts)) == list(_heads(plain))
    assert [len(block) for block in _heads(parts).values()] == 9 * [52] + 3 * [48]
    assert not problem.model[0].norm._forward_hooks


IN_TURN, SWAPPED = [head * 4 + i for i in range(4) for head in range(3)], [0, 1, 2, 8, 4, 5, 6, 7, 3, 9, 10, 11]
REASONS = {
    "one token": ([Small()], STREAM[:, :1], "sequences of two tokens or more would tell"),
    "columns of all heads in turn": ([Small(order=IN_TURN)], STREAM, "which are interleaved or of one dimension"),
    "two columns swapped": ([Small(order=SWAPPED)], STREAM, "its heads are not slices"),
    "another number": ([Small(number=4)], STREAM, "it says that it has 4 of them, and derivatives show 3"),
    "one dimension": ([Small(narrow=True, number=12)], STREAM, "which are interleaved or of one dimension"),
    "a channel that is not used": ([Wasteful()], STREAM, "some of what its layers make reaches no head"),
    "weights that are copied": ([Small(hidden=True)], STREAM, "its layers were not seen in a forward pass"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_told_is_not_guessed(name):
    attentions, x, reason = REASONS[name]
    with pytest.raises(SpecError) as error:
        partition(_small(*attentions, x=x), "head")
    assert error.value.what.startswith("--by head: the heads of 0 cannot be told: ")
    assert reason in error.value.what


def test_what_cannot_be_told_is_kept_whole_beside_what_can():
    parts = partition(_small(Small(), Small(order=SWAPPED)), "head")
    assert parts.names[12:] == ("0.dense.bias", "1", "1.dense.weight", "1.dense.bias")
    assert parts.kinds[13] == "Small"
    assert parts.sizes[13] == 3 * 13 * 12
    assert parts.notes[0].startswith("1: kept whole, for the heads cannot be told: its heads are not slices")


def test_shared_keys_are_said():
    problem, *_ = _of_case("transformers LlamaModel")
    notes = partition(problem, "head").notes
    assert notes[0] == "layers.0.self_attn: 6 heads of queries share 2 of keys and values"


def test_a_batch_that_does_not_fit_is_what_is_said():
    with pytest.raises(ComputeError, match="model, batch and loss do not fit"):
        partition(_small(Small(), x=STREAM[..., :5]), "head")


def test_a_loss_that_random_numbers_break_hides_no_head():
    def objective(model, batch):
        output = model(batch)
        return output.square().mean() if (output == expected).all() else output.sum() / 0

    model = Small()
    expected = model(STREAM).detach()
    assert len(_heads(partition(Problem(model, data=[STREAM], objective=objective), "head"))) == 12


def test_no_attention_and_no_parameters():
    with pytest.raises(SpecError, match="the model has no attention that is known"):
        partition(_small(nn.Linear(12, 12)), "head")
    with pytest.raises(SpecError, match="no parameter of a head is measured"):
        partition(_small(Small(), nn.Linear(12, 12), layers="1.*"), "head")


def test_frozen_parameters_are_not_there_and_hide_no_head():
    model = Small()
    model.query.requires_grad_(False)
    found = _heads(partition(_small(model), "head"))
    assert list(found)[:3] == ["0.K[0]", "0.K[1]", "0.K[2]"]
    assert len(found) == 9


def test_shared_attention_counts_once():
    one, other = Small(), Small()
    other.query.weight = one.query.weight
    problem = _small(one, other)
    parts = partition(problem, "head")
    assert sum(parts.sizes) == problem.n_parameters
    sizes = dict(zip(parts.names, parts.sizes, strict=True))
    assert (sizes["0.Q[1]"], sizes["1.Q[1]"], sizes["1.K[1]"]) == (52, 4, 52)


def test_the_model_and_its_random_state_stay_as_they_are():
    problem = _small(Small(), nn.Dropout(0.5), Small())
    before, state = [p.clone() for p in problem.parameters], torch.get_rng_state()
    partition(problem, "head")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.parameters, strict=True))
    assert all(parameter.grad is None for parameter in problem.parameters)


class Apart(nn.Module):
    """Every head a module of its own, side by side, as in lectures on GPT."""

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(12, 4, bias=False) for _ in range(3))

        def forward(self, x):
            return F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))

    def __init__(self):
        super().__init__()
        self.heads, self.proj = nn.ModuleList(Apart.Head() for _ in range(3)), nn.Linear(12, 12)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], -1))


def test_heads_that_are_modules_of_their_own():
    problem = _small(Apart())
    found = _heads(partition(problem, "head"))
    assert list(found)[:5] == ["0.heads.0.Q[0]", "0.heads.0.K[0]", "0.heads.0.V[0]", "0.heads.1.Q[0]", "0.heads.1.K[0]"]
    assert found["0.heads.1.O[0]"].tolist() == [432 + 12 * row + column for row in range(12) for column in range(4, 8)]
