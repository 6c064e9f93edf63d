"""Pieces read from files against whole models; samples and weights of parts; what is refused."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessdiag import ProblemRequest, load_problem
from hessdiag.errors import LoadError
from hessdiag.problem.wrappers import unwrapped
from hessdiag.shards import refuse, samples
from hessdiag.shards.layout import cut
from hessdiag.shards.mapped import Pages
from hessdiag.shards.reading import Pieces, run
from hessdiag.shards.unfilled import NoNumbersError, without_numbers

SCRIPT = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

def setup():
    built = model()
    return built, [(torch.randn(4, 3), torch.arange(4) % 2)], "ce"

def teacher():
    built, other = model(), model()
    x = torch.randn(4, 3)
    return built, [(x, other(x).detach())], "mse"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(SCRIPT)
    torch.manual_seed(3)
    state = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    return tmp_path


def both(**asked):
    request = {"model": "net.py:setup", "device": "cpu", **asked}
    return load_problem(ProblemRequest(**request, shard=True)), load_problem(ProblemRequest(**request))


def test_a_batch_in_parts_is_the_same_function(folder):
    sharded, whole = both(batch_size=3)
    assert [len(y) for _, y in sharded.data] == [3, 1]
    assert sharded.value() == pytest.approx(whole.value(), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_pieces_are_those_of_the_whole(size):
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    state = whole.state_dict()
    state["1.weight"] = state["1.weight"].t().contiguous().t()  # as files may hold it: rows are not one after the other
    for rank in range(size):
        with without_numbers():
            model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
        pieces = Pieces(rank, size, torch.device("cpu"), torch.float64)
        with pieces.filling(model):
            model.load_state_dict(state)
        for name, parameter in model.named_parameters():
            expected = cut(dict(whole.named_parameters())[name], rank, size).double()
            assert torch.equal(pieces.found[id(parameter)].numbers, expected)


def test_rows_that_cover_a_run_are_cut():
    tensor = torch.arange(24).reshape(4, 6).t()
    for start, stop in ((0, 24), (3, 9), (5, 5), (23, 24)):
        assert torch.equal(run(tensor, start, stop), tensor.reshape(-1)[start:stop])


@pytest.mark.parametrize("weights", ["w.safetensors", "w.pt"])
def test_weights_are_read_into_pieces_and_random_data_are_the_same(folder, weights):
    sharded, whole = both(weights=weights)
    assert not any(note.startswith("shards: each process built") for note in sharded.notes)
    for piece, parameter in zip(sharded.pieces, whole.parameters, strict=True):
        assert torch.equal(piece, parameter.detach().reshape(-1))
    assert torch.equal(sharded.data[0][0], whole.data[0][0])
    assert sharded.value() == pytest.approx(whole.value(), rel=1e-6)


def test_a_script_that_computes_with_its_weights_is_built_whole(folder):
    sharded, whole = both(model="net.py:teacher", weights="w.safetensors")
    assert any(note.startswith("shards: each process built the whole model") for note in sharded.notes)
    assert torch.equal(sharded.data[0][1], whole.data[0][1])
    assert sharded.value() == pytest.approx(whole.value(), rel=1e-6)


def test_messages_are_those_of_whole_models(folder):
    state = torch.load("w.pt")
    wrong = {
        "missing": {name: value for name, value in state.items() if name != "2.bias"},
        "unexpected": state | {"more": torch.ones(1)},
        "shape": state | {"2.bias": torch.ones(3)},
        "nan": state | {"0.bias": torch.full((5,), math.nan)},
    }
    for name, content in wrong.items():
        save_file(content, f"{name}.safetensors")
        said = []
        for shard in (True, False):
            with pytest.raises(LoadError) as error:
                load_problem(ProblemRequest("net.py:setup", weights=f"{name}.safetensors", device="cpu", shard=shard))
            said.append((error.value.what, error.value.hint))
        assert said[0] == said[1]


def test_what_no_file_has_keeps_its_initialization(folder):
    save_file({name: value for name, value in torch.load("w.pt").items() if name != "2.bias"}, "few.safetensors")
    sharded, whole = both(weights="few.safetensors", strict=False)
    for piece, parameter in zip(sharded.pieces, whole.parameters, strict=True):
        assert torch.equal(piece, parameter.detach().reshape(-1))


def test_parameters_without_numbers_give_none():
    with without_numbers():
        layer = nn.Linear(3, 2, bias=False)
        with pytest.raises(NoNumbersError):
            layer(torch.ones(1, 3))
        nn.init.normal_(layer.weight)
    assert layer.weight.is_meta


def test_initializations_draw_what_they_would_draw():
    def after(count):
        torch.manual_seed(0)
        nn.init.normal_(nn.Linear(count, 1).weight)
        return torch.randn(2)

    for count in (5, 100, 2**20 + 3):
        expected = after(count)
        with without_numbers():
            assert torch.equal(after(count), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("sums", [False, True])
def test_parts_make_the_whole(size, sums):
    torch.manual_seed(0)
    logits, target = torch.randn(7, 3).double(), torch.tensor([-100, -100, -100, 0, 1, 2, -100])
    reduction = "sum" if sums else "mean"
    found = samples.parts((logits, target), size, lambda part: float((part[1] != -100).sum()), sums=sums)
    shares = [part.weight * nn.functional.cross_entropy(*part.batch, reduction=reduction) for part in found]
    assert float(sum(shares)) == pytest.approx(
        float(nn.functional.cross_entropy(logits, target, reduction=reduction)), rel=1e-12
    )


def test_refused_models():
    hooked = nn.Linear(2, 2)
    hooked.weight.register_hook(lambda slope: 2 * slope)
    for model, train, said in (
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), True, r"1 \(Dropout, p = 0.1\) drops in training mode"),
        (nn.Sequential(nn.BatchNorm1d(2)), True, r"0 \(BatchNorm1d\) takes the statistics of the batch"),
        (nn.Embedding(3, 2, max_norm=1.0), False, "max_norm = 1"),
        (nn.EmbeddingBag(3, 2, scale_grad_by_freq=True), False, "scale_grad_by_freq"),
        (hooked, False, "weight has a hook on its gradient"),
    ):
        with pytest.raises(LoadError, match=said):
            refuse.model(model, train_mode=train)
    refuse.model(nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(2).eval()), train_mode=False)
    refuse.model(nn.Sequential(nn.Dropout(0.0)), train_mode=True)


def test_wrapped_models():
    layer = nn.Linear(2, 2)
    assert unwrapped(nn.DataParallel(layer)) is layer


def test_pages_of_no_file_are_left_alone():
    tensor = torch.ones(10_000)
    Pages.of([], [tensor]).let_go(tensor)
    assert bool((tensor == 1).all())
