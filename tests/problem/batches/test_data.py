"""Batches from anything that holds some, taken and cut to size."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from hessdiag.errors import LoadError, UntrustedFileError
from hessdiag.problem.batches.batch import samples
from hessdiag.problem.batches.data import ALL, as_batches, from_file, plain_numbers

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10) % 3
DATASET = TensorDataset(X, Y)


def sizes(value, **options):
    return [samples(batch) for batch in as_batches(value, **options)[0]]


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ((X, Y), {}, [10]),
        (((X, X), Y), {}, [10]),
        ({"input": X, "labels": Y}, {}, [10]),
        ([X, Y], {}, [10]),
        ([X, Y], {"free_form": True}, [10, 10]),
        ([(X, Y), (X[:4], Y[:4])], {}, [10, 4]),
        ([[X, Y], [X[:4], Y[:4]], [X, Y]], {"batches": 2}, [10, 4]),
        ([(X, Y), (X, Y)], {"batches": ALL}, [10, 10]),
        (DataLoader(DATASET, batch_size=4), {}, [4]),
        (DataLoader(DATASET, batch_size=4), {"batches": 2}, [4, 4]),
        (DataLoader(DATASET, batch_size=4), {"batches": ALL}, [4, 4, 2]),
        (((X, Y) for _ in range(3)), {"batches": ALL}, [10, 10, 10]),
        (DATASET, {"batches": ALL, "batch_size": 7}, [7, 3]),
        ((X, Y), {"batch_size": 4}, [4, 4, 2]),
        ((X, Y), {"batch_size": 4, "batches": 1}, [4]),
        ({"input": X, "labels": Y}, {"batch_size": 5}, [5, 5]),
        ((X, Y), {"batch_size": 50}, [10]),
        ((X.numpy(), Y.numpy()), {}, [10]),
        (X, {"free_form": True}, [10]),
    ],
)
def test_what_is_taken(value, options, expected):
    assert sizes(value, **options) == expected


def test_infinite_streams_are_not_exhausted():
    class Stream(IterableDataset):
        def __iter__(self):
            while True:
                yield X[0], Y[0]

    assert sizes(Stream(), batch_size=3) == [3]


def test_cutting_keeps_pairs_together():
    taken, notes = as_batches(((X, X + 1), Y), batch_size=3)
    assert torch.equal(torch.cat([batch[0][1] for batch in taken]), X + 1)
    assert torch.equal(torch.cat([batch[1] for batch in taken]), Y)
    assert notes == ("data: 4 batches were taken",)


def test_the_first_batch_is_said():
    _, notes = as_batches(DataLoader(DATASET, batch_size=4))
    assert notes == ("data: the first batch of 3 was taken; --batches N or all takes more",)


def test_numpy_becomes_torch():
    ((x, y),) = as_batches((X.numpy(), Y.numpy()))[0]
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        ([], {}, "no batch"),
        (3, {}, "not a int"),
        ("text", {}, "not a str"),
        (((X, X[:3]), Y), {"batch_size": 2}, "different lengths"),
    ],
)
def test_refusals(value, options, said):
    with pytest.raises(LoadError, match=said):
        as_batches(value, **options)


def save_npz(path, content):
    with path.open("wb") as stream:
        np.savez(stream, **{key: value.numpy() for key, value in content.items()})


SAVERS = {
    "npz": save_npz,
    "torch": lambda path, c: torch.save(c, path),
    "safetensors": lambda path, c: save_file(c, path),
}


def load(path, key=None, free_form=False):
    return from_file(str(path), key, free_form=free_form)


@pytest.mark.parametrize("form", SAVERS)
class TestFiles:
    def test_x_and_y(self, form, tmp_path):
        SAVERS[form](tmp_path / "b", {"extra": X[:1].clone(), "x": X, "y": Y})
        x, y = load(tmp_path / "b")
        assert torch.equal(x, X)
        assert torch.equal(y, Y)

    def test_other_names(self, form, tmp_path):
        SAVERS[form](tmp_path / "b", {"images": X, "labels": Y})
        assert torch.equal(load(tmp_path / "b", "images,labels")[1], Y)
        assert torch.equal(load(tmp_path / "b", "images"), X)
        with pytest.raises(LoadError) as caught:
            load(tmp_path / "b")
        assert f"{tmp_path / 'b'}#images,labels" in str(caught.value)
        with pytest.raises(LoadError, match="no array 'nope'"):
            load(tmp_path / "b", "nope,labels")

    def test_mappings(self, form, tmp_path):
        SAVERS[form](tmp_path / "b", {"input_ids": Y, "labels": Y.clone()})
        assert set(load(tmp_path / "b")) == {"input_ids", "labels"}
        SAVERS[form](tmp_path / "c", {"anything": Y})
        assert set(load(tmp_path / "c", free_form=True)) == {"anything"}


def test_tuples_in_torch_files(tmp_path):
    torch.save((X, Y), tmp_path / "b.pt")
    assert sizes(load(tmp_path / "b.pt")) == [10]
    torch.save([(X, Y), (X, Y)], tmp_path / "b.pt")
    assert sizes(load(tmp_path / "b.pt")) == [10, 10]


def test_what_is_not_data(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "m.pt")
    with pytest.raises(LoadError, match="holds a model, not data"):
        load(tmp_path / "m.pt")
    torch.save(DATASET, tmp_path / "d.pt")
    with pytest.raises(UntrustedFileError, match="TensorDataset"):
        load(tmp_path / "d.pt")


def test_number_types():
    images = torch.randint(256, (4, 1, 2, 2), dtype=torch.uint8)
    ((x, y),), notes = plain_numbers([(images, Y[:4].int())], tokens=False)
    assert x.dtype == torch.float32
    assert torch.equal(x, images.float())
    assert y.dtype == torch.int64
    assert notes == ("data: uint8 inputs were converted to float, and not scaled",)
    ((x, y),), notes = plain_numbers([(Y, X)], tokens=True)
    assert x.dtype == torch.int64
    assert y.dtype == torch.float32
    assert notes == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(4, 3, device="meta"), "without values"),
        (torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8), "quantized"),
        (torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]), "nested"),
        (np.array(["cat", "dog"]), "an array of <U3"),
        (np.ones(3, dtype=np.longdouble), "an array of"),
    ],
)
def test_batches_without_plain_numbers(value, said):
    with pytest.raises(LoadError, match=said) as caught:
        as_batches((value, torch.ones(4)))
    assert "\n" not in caught.value.what


def test_arrays_of_any_order_and_stride():
    array = np.arange(6.0).reshape(2, 3)
    frozen = array.copy()
    frozen.flags.writeable = False
    for given in (array.astype(">f8"), array[::-1][::-1], np.flip(np.flip(array, 1).copy(), 1), frozen):
        ((x, _),), _ = as_batches((given, array))
        assert x.tolist() == array.tolist()
        assert x.dtype == torch.float64


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc])
def test_sparse_inputs_are_as_dense_ones(form):
    """The adjacency matrix of a graph: checked, hashed and differentiated without being made dense."""
    from hessdiag import Problem, hessian
    from hessdiag.problem.describe import describe

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a = torch.nn.Linear(3, 2).double()

        def forward(self, x, edges):
            return edges @ torch.tanh(self.a(x))

    torch.manual_seed(1)
    x, edges, y = torch.randn(5, 3).double(), (torch.rand(5, 5) < 0.5).double(), torch.arange(5) % 2
    dense = Problem(Graph(), [((x, edges), y)], "ce")
    sparse = Problem(Graph(), [((x, form(edges)), y)], "ce")
    assert torch.allclose(hessian(sparse), hessian(dense), rtol=1e-12, atol=1e-15)
    assert (
        describe(sparse)["data_sha256"] != describe(Problem(Graph(), [((x, form(2 * edges)), y)], "ce"))["data_sha256"]
    )
    bad = torch.zeros(5, 5).double()
    bad[0, :3] = torch.nan
    with pytest.raises(LoadError, match="batch 0 holds 3 NaN"):
        Problem(Graph(), [((x, form(bad)), y)], "ce")


@pytest.mark.parametrize("kind", ["list", "mapping"])
def test_data_that_holds_itself(kind):
    circular = [] if kind == "list" else {}
    circular.append(circular) if kind == "list" else circular.update(me=circular)
    with pytest.raises(LoadError, match="hold itself"):
        as_batches((circular, torch.ones(2)))
