"""Images from IDX files, CIFAR's Python batches and scikit-learn: read, paired with targets, fitted to the model."""

import builtins
import gzip
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

from hessdiag.errors import LoadError, SpecError, UntrustedFileError
from hessdiag.problem.batches.images import digits
from hessdiag.problem.files import plain_pickle
from hessdiag.problem.files.checkpoint import read, sniff
from hessdiag.problem.load import ALL, ProblemRequest, load_problem

RNG = np.random.default_rng(0)
GREY = RNG.integers(256, size=(5, 6, 4), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
COLOURS = RNG.integers(256, size=(6, 3 * 8 * 8), dtype=np.uint8)
IMAGES_NAME, LABELS_NAME = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array, code=8):
    """An IDX file's bytes, as the MNIST page describes them."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, code, array.ndim]) + lengths + array.tobytes()


def load(data, model="builtin:mlp(depth=1, in_features=24, out_features=10)", **options):
    return load_problem(ProblemRequest(model, data=str(data), device="cpu", **options))


@pytest.fixture
def mnist(tmp_path):
    (tmp_path / IMAGES_NAME).write_bytes(idx(GREY))
    (tmp_path / LABELS_NAME).write_bytes(idx(LABELS))
    return tmp_path / IMAGES_NAME


@pytest.fixture
def cifar(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(python_2(COLOURS, [0, 9, 3, 3, 1, 2]))
    return tmp_path / "data_batch_1"


class TestIdx:
    def test_images_with_the_labels_beside_them(self, mnist):
        problem = load(mnist)
        ((x, y),) = problem.data
        assert torch.equal(x, torch.tensor(GREY).double().flatten(1) / 255)
        assert y.tolist() == LABELS.tolist()
        assert problem.loss == "ce"
        assert [file["path"] for file in problem.source["files"]] == [str(mnist), str(mnist.with_name(LABELS_NAME))]
        assert "data: 5 images of 1x6x4, pixels scaled to [0, 1], not centred" in problem.notes
        assert "data: each image was flattened to 24 inputs" in problem.notes

    @pytest.mark.parametrize("zipped", ["both", "images", "labels"])
    def test_gzip(self, mnist, zipped):
        for name in (IMAGES_NAME, LABELS_NAME):
            plain = mnist.with_name(name)
            if zipped == "both" or zipped in name:
                mnist.with_name(f"{name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
                plain.unlink()
        file = mnist if mnist.exists() else mnist.with_name(f"{IMAGES_NAME}.gz")
        assert load(file).data[0][1].tolist() == LABELS.tolist()

    def test_the_name_does_not_matter_without_labels(self, mnist):
        other = mnist.rename(mnist.with_name("scans.bin"))
        with pytest.raises(LoadError, match="images without labels") as caught:
            load(other)
        assert f"--data '{other}#images,images' --loss mse" in str(caught.value)
        ((x, y),) = load(f"{other}#images,images", "builtin:mlp(depth=1, width=24)", loss="mse").data
        assert torch.equal(x, y)
        assert x.shape == (5, 24)

    def test_an_objective_needs_no_labels(self, mnist, tmp_path):
        mnist.with_name(LABELS_NAME).unlink()
        (tmp_path / "own.py").write_text("def f(model, batch): return model(batch).square().mean()")
        assert load(mnist, objective=f"{tmp_path / 'own.py'}:f").data[0].shape == (5, 24)

    @pytest.mark.parametrize(
        ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
    )
    def test_number_types(self, code, dtype, tmp_path):
        values = np.arange(6).reshape(2, 3).astype(dtype)
        (tmp_path / "a").write_bytes(idx(values, code))
        assert torch.equal(read(tmp_path / "a").double(), torch.arange(6.0).double().reshape(2, 3))

    def test_what_is_refused(self, mnist):
        with pytest.raises(LoadError, match=r"shape \(5,\).* not images") as caught:
            load(mnist.with_name(LABELS_NAME))
        assert str(mnist) in str(caught.value)
        mnist.with_name(LABELS_NAME).write_bytes(idx(LABELS[:3]))
        with pytest.raises(LoadError, match=r"5 images, and .* labels of shape"):
            load(mnist)
        mnist.write_bytes(idx(GREY)[:-1])
        with pytest.raises(LoadError, match="takes 136 bytes, and it has 135"):
            load(mnist)
        with pytest.raises(LoadError, match="holds no model"):
            load(mnist, model=str(mnist.with_name(LABELS_NAME)))

    def test_other_gzip_files(self, mnist, tmp_path):
        with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
            archive.add(mnist, mnist.name)
        with pytest.raises(LoadError, match=r"try: tar xf"):
            sniff(tmp_path / "all.tar.gz")
        (tmp_path / "text.gz").write_bytes(gzip.compress(b"text"))
        with pytest.raises(LoadError, match=r"try: gunzip"):
            sniff(tmp_path / "text.gz")
        (tmp_path / "cut.gz").write_bytes(gzip.compress(idx(GREY))[:20])
        with pytest.raises(LoadError, match="truncated or damaged"):
            sniff(tmp_path / "cut.gz")


def python_2(rows, labels):
    """A batch as Python 2's cPickle wrote CIFAR's: text without an encoding (U, T), an array through its dtype's state."""
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    dtype = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"M" + rows.shape[0].to_bytes(2, "little") + b"M" + rows.shape[1].to_bytes(2, "little") + b"\x86"
    raw = b"T" + rows.size.to_bytes(4, "little") + rows.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    state = b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"
    return b"\x80\x02}q\x01(U\x06labels](" + numbers + b"eU\x04data" + array + state + b"u."


class TestCifar:
    MODEL = "builtin:convnet(in_channels=3)"

    def test_rows_are_red_green_blue(self, cifar):
        ((x, y),) = load(cifar, self.MODEL).data
        assert torch.equal(x, torch.tensor(COLOURS).double().reshape(6, 3, 8, 8) / 255)
        assert x[2, 1, 3, 5] == COLOURS[2, 64 + 3 * 8 + 5] / 255
        assert y.tolist() == [0, 9, 3, 3, 1, 2]

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_cifar_100_by_any_protocol(self, protocol, tmp_path):
        batch = {b"data": COLOURS, b"fine_labels": list(range(6)), b"coarse_labels": [1] * 6, b"filenames": [b"a.png"]}
        (tmp_path / "train").write_bytes(pickle.dumps(batch, protocol=protocol))
        assert load(tmp_path / "train", self.MODEL).data[0][1].tolist() == list(range(6))
        assert load(f"{tmp_path / 'train'}#images,coarse_labels", self.MODEL).data[0][1].tolist() == [1] * 6
        with pytest.raises(LoadError, match="fine_labels, coarse_labels, images; 'images,labels' names no pair"):
            load(f"{tmp_path / 'train'}#images,labels", self.MODEL)

    def test_how_many(self, cifar):
        assert load(cifar, self.MODEL, batch_size=4).n_samples == 4
        assert load(cifar, self.MODEL, batch_size=4, batches=ALL).n_samples == 6

    def test_networks_from_image_to_image_have_the_image_as_target(self, cifar):
        problem = load(cifar, "builtin:fcn(depth=2, channels=2, resolution=8)")
        ((x, y),) = problem.data
        assert torch.equal(x, y)
        assert (problem.loss, x.shape) == ("mse", (6, 3, 8, 8))
        assert any(note.endswith("each its own target") for note in problem.notes)

    def test_labels_of_another_number(self, tmp_path):
        (tmp_path / "b").write_bytes(pickle.dumps({b"data": COLOURS, b"labels": [1]}))
        with pytest.raises(LoadError, match=r"6 images, and labels of shape \(1,\)"):
            load(tmp_path / "b", self.MODEL)

    def test_other_mappings_are_no_images(self, tmp_path):
        (tmp_path / "b").write_bytes(pickle.dumps({"x": np.ones((3, 24)), "y": np.array([0, 1, 2])}))
        assert load(tmp_path / "b").data[0][0].shape == (3, 24)
        (tmp_path / "b").write_bytes(pickle.dumps({b"data": COLOURS[:, :-1]}))
        with pytest.raises(LoadError, match="no arrays x and y"):
            load(tmp_path / "b")


class TestDigits:
    def test_pixels_and_classes(self):
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        problem = load("builtin:digits", "builtin:mlp(depth=1, in_features=64, out_features=10)", batch_size=20)
        assert np.array_equal(problem.data[0][0].numpy(), x[:20] / 16)
        assert problem.data[0][1].tolist() == y[:20].tolist()
        assert problem.source["synthetic"] is False

    def test_size_and_channels(self):
        image, label = digits(size=16, channels=3)[7]
        assert (image.shape, label) == ((3, 16, 16), 7)
        assert torch.equal(image[0], image[2])
        assert torch.allclose(image.mean(), digits()[7][0].mean(), atol=0.01)
        problem = load("builtin:digits(size=32, channels=3)", "builtin:lenet", batch_size=2)
        assert problem.data[0][0].shape == (2, 3, 32, 32)

    @pytest.mark.parametrize(
        ("spec", "error", "said"),
        [
            ("builtin:digits(size=0)", SpecError, "at least 1"),
            ("builtin:digits(width=8)", SpecError, "size=8, channels=1"),
            ("builtin:digit", SpecError, "there is digits"),
            ("builtin:digits", LoadError, r"does not take this batch, inputs \(32, 1, 8, 8\)"),
        ],
    )
    def test_refusals(self, spec, error, said):
        with pytest.raises(error, match=said):
            load(spec)

    def test_without_scikit_learn(self, monkeypatch):
        real = builtins.__import__

        def none_of_it(name, *rest):
            if name.startswith("sklearn"):
                raise ImportError(name)
            return real(name, *rest)

        monkeypatch.setattr(builtins, "__import__", none_of_it)
        with pytest.raises(LoadError, match=r"pip install scikit-learn"):
            load("builtin:digits")


CONTENT = {
    "bytes": np.arange(6, dtype="u1").reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "complex": np.array([1j]),
    "empty": np.zeros((0, 3)),
    "number": np.float64(2.5),
    b"raw": [b"", "text", None, True, {1, 2}],
}


class TestPlainPickles:
    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_arrays_come_back(self, protocol):
        content = {key: value for key, value in CONTENT.items() if protocol > 3 or key != b"raw"}
        loaded = plain_pickle.load(io.BytesIO(pickle.dumps(content, protocol=protocol)))
        for key, value in content.items():
            assert np.array_equal(loaded[key], value) if isinstance(value, np.ndarray) else loaded[key] == value

    @pytest.mark.parametrize(
        "value",
        [np.array(["text"]), np.array([None]), np.zeros(2, dtype=[("a", "f4"), ("b", "O")]), np.float64, print],
    )
    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_anything_else_is_refused(self, value, protocol, tmp_path):
        (tmp_path / "b").write_bytes(pickle.dumps({"x": value}, protocol=protocol))
        with pytest.raises(UntrustedFileError, match="nothing of it was run"):
            read(tmp_path / "b")

    def test_a_dtype_that_lies(self, tmp_path):
        """numpy would take these bytes for pointers to Python objects."""
        code = pickle.dumps(np.zeros(1, "V8"), protocol=2).replace(b"V8", b"O8")
        (tmp_path / "b").write_bytes(code)
        with pytest.raises(UntrustedFileError):
            read(tmp_path / "b")

    def test_attributes_of_stand_ins_do_not_stay(self):
        """BUILD with a pair sets attributes of anything, also of a stand-in; the next file has stand-ins of its own."""
        name = b"cnumpy.core.multiarray\n_reconstruct\n"
        marked = plain_pickle.load(io.BytesIO(b"\x80\x02" + name + b"N}X\x04\x00\x00\x00markNs\x86b."))
        assert hasattr(marked, "mark")
        assert not hasattr(plain_pickle.load(io.BytesIO(b"\x80\x02" + name + b".")), "mark")

    def test_damage(self, cifar):
        cifar.write_bytes(cifar.read_bytes()[:-40])
        with pytest.raises(LoadError, match="damaged or truncated"):
            read(cifar)
