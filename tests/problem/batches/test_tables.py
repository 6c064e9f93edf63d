"""Tables of text as data: what is read, beside pandas and the csv module; and what is refused, with the place."""

import csv
import gzip
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.problem.batches import tables
from hessdiag.problem.files.lines import form_of
from hessdiag.problem.load import ALL, ProblemRequest, load_problem

IRIS = "sepal,petal,width,species\n" + "".join(
    f"{k}.5,{k},-{k}e-1,{('setosa', 'virginica', 'versicolor')[k // 20]}\n" for k in range(60)
)


@pytest.fixture
def iris(folder):
    (folder / "iris.csv").write_text(IRIS)
    torch.save(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)), "m.pt")
    return folder / "iris.csv"


def load(data, model="m.pt", **options):
    return load_problem(ProblemRequest(model, data=str(data), device="cpu", **options))


def read(path, key=None, **options):
    return tables.read(path, form_of(path), key, **options)


def written(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestReading:
    def test_rows_are_drawn_and_classes_numbered_over_the_whole_file(self, iris):
        problem = load(iris)
        ((x, y),) = problem.data
        assert x.shape == (32, 3)
        assert problem.loss == "ce"
        assert set(y.tolist()) == {0, 1, 2}
        names = sorted({row["species"] for row in csv.DictReader(IRIS.splitlines())})
        truth = {float(row["sepal"]): names.index(row["species"]) for row in csv.DictReader(IRIS.splitlines())}
        assert [truth[float(row[0])] for row in x] == y.tolist()
        assert "data: 3 classes in the order of their names: 0 setosa, 1 versicolor, 2 virginica" in problem.notes
        assert "data: the first batch of 2 was taken; --batches N or all takes more" in problem.notes
        assert any("not standardized; the target is column species" in note for note in problem.notes)
        assert [file["path"] for file in problem.source["files"]][-1].endswith("iris.csv")

    def test_more_rows_begin_with_the_same_ones(self, iris):
        few, more, all_ = (load(iris, batches=batches, batch_size=10) for batches in (1, 3, ALL))
        assert len(all_.data) == 6
        for other in (few, more):
            for (x, y), (u, v) in zip(other.data, all_.data, strict=False):
                assert torch.equal(x, u)
                assert torch.equal(y, v)
        whole = torch.cat([x for x, _ in all_.data])
        assert sorted(whole[:, 1].tolist()) == list(range(60))
        assert whole[:, 1].tolist() != list(range(60))

    def test_the_seed_draws_and_shuffle_false_does_not(self, iris):
        assert not torch.equal(load(iris).data[0][0], load(iris, seed=1).data[0][0])
        problem = load(f"{iris}(shuffle=False)", batch_size=4)
        assert problem.data[0][0][:, 1].tolist() == [0, 1, 2, 3]
        assert problem.data[0][1].tolist() == [0] * 4
        assert "data: 3 classes in the order of their names: 0 setosa, 1 versicolor, 2 virginica" in problem.notes

    def test_every_row_is_drawn_as_often(self, folder):
        path = written(folder, "".join(f"{k},{k}.5\n" for k in range(12)))
        counts = np.zeros(12)
        for seed in range(600):
            counts[read(path, seed=seed, most=3).inputs[:, 0].long().numpy()] += 1
        expected = 600 * 3 / 12
        assert ((counts - expected) ** 2 / expected).sum() < 31.3  # chi squared with 11 degrees of freedom, p = 0.001

    @pytest.mark.parametrize("mark", [",", ";", "\t", "|", " "])
    def test_delimiters(self, mark, folder):
        path = written(folder, "".join(mark.join([f"{k}.25", str(-k), str(k % 3)]) + "\r\n" for k in range(9)))
        table = read(path, shuffle=False)
        assert table.inputs.tolist() == [[k + 0.25, -k] for k in range(9)]
        assert table.target.tolist() == [k % 3 for k in range(9)]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_encodings(self, encoding, folder):
        path = written(folder, "größe,art\n1,Bär\n2,Ähre\n".encode(encoding))
        table = read(path, shuffle=False)
        assert (table.inputs.tolist(), table.target.tolist()) == ([[1], [2]], [0, 1])

    def test_gzip(self, folder):
        path = written(folder, gzip.compress(b"a,b\n1,2.5\n3,4.5\n"), "t.csv.gz")
        assert read(path, shuffle=False).target.tolist() == [[2.5], [4.5]]

    def test_quotes_and_what_numpy_and_pandas_write(self, folder):
        path = written(folder, '"a","the, b"\n"1","x ""y"""\n2,"two\nlines"\n')
        table = read(path, shuffle=False)
        assert table.target.tolist() == [1, 0]
        assert any("the target is column the, b" in note for note in table.notes)
        np.savetxt(folder / "n.txt", np.arange(6.0).reshape(3, 2), header="a b")
        assert read(folder / "n.txt", "a", shuffle=False).inputs.tolist() == [[1], [3], [5]]
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(7, 4)))
        frame.to_csv(folder / "with.csv")
        frame.to_csv(folder / "without.csv", index=False)
        for name in ("with.csv", "without.csv"):
            table = read(folder / name, shuffle=False)
            assert np.array_equal(table.inputs.numpy(), frame.to_numpy()[:, :3])
            assert np.array_equal(table.target.numpy()[:, 0], frame.to_numpy()[:, 3])
        assert "data: the first column only counts the rows, and is left out" in read(folder / "with.csv").notes

    @pytest.mark.parametrize(
        ("key", "inputs", "target"),
        [
            (None, [[2, 3]], [[1.5]]),  # it is called y
            ("b", [[1.5, 3]], [2]),
            ("3", [[1.5, 2]], [3]),
            ("b,c", [[1.5]], [[2, 3]]),
        ],
    )
    def test_the_target_by_name_or_number(self, key, inputs, target, folder):
        table = read(written(folder, "y,b,c\n1.5,2,3\n"), key)
        assert (table.inputs.tolist(), table.target.tolist()) == (inputs, target)

    def test_inputs_by_name(self, folder):
        path = written(folder, "id,a,b,y\nx1,1,2,0\nx2,3,4,1\n")
        with pytest.raises(LoadError, match=r"column id: 'x\d' is no number") as caught:
            read(path)
        hint = caught.value.hint
        assert hint == f'--data \'{path}#y(inputs=("a", "b"))\''
        torch.save(nn.Linear(2, 2), folder / "m.pt")
        problem = load(hint.removeprefix("--data '").removesuffix("'"), str(folder / "m.pt"))
        assert sorted(problem.data[0][0].tolist()) == [[1, 2], [3, 4]]

    def test_header_as_told(self, folder):
        path = written(folder, "1,2\n3,4\n")
        assert len(read(path)) == 2
        assert len(read(path, header=True)) == 1
        assert read(path, header=True).target.tolist() == [4]

    def test_real_targets_are_columns_and_the_loss_is_mse(self, folder):
        path = written(folder, "a,y\n" + "".join(f"{k},{k / 8}\n" for k in range(8)))
        torch.save(nn.Linear(1, 1), folder / "m.pt")
        problem = load(path, str(folder / "m.pt"))
        assert problem.loss == "mse"
        assert problem.data[0][1].shape == (8, 1)

    def test_tokens_stay_whole(self, folder):
        path = written(folder, "1,2,3,0\n3,2,1,1\n")
        torch.save(nn.Sequential(nn.Embedding(4, 2), nn.Flatten(), nn.Linear(6, 2)), folder / "m.pt")
        assert load(path, str(folder / "m.pt")).data[0][0].dtype == torch.int64

    @given(st.integers(1, 5), st.integers(2, 30), st.integers(0, 2**32), st.sampled_from(",;\t|"))
    def test_any_table_of_numbers_comes_back(self, width, rows, seed, mark):
        import tempfile
        from pathlib import Path

        values = np.random.default_rng(seed).normal(size=(rows, width + 1)) * 10.0 ** (seed % 7 - 3)
        with tempfile.TemporaryDirectory() as here:
            path = Path(here) / "t"
            path.write_text("".join(mark.join(map(repr, map(float, row))) + "\n" for row in values))
            table = read(path, shuffle=False)
        assert np.array_equal(np.hstack([table.inputs.numpy(), table.target.numpy()]), values)


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("a,b\n1,2\n,4\n", "line 3, column a: the value is missing (empty)"),
            ("a,b\n1,2\n3,NA\n", "line 3, column b: the value is missing (NA)"),
            ("a,b\n1,2\n3,?\n", "line 3, column b: the value is missing (?)"),
            ("a,b,c\n1,2,3\n1,2,3\n1,2,3\n1,2,3\n4,5\n", "line 6: 2 cells, where the first row has 3"),
            ("a,b\n1,2\nx,4\n", "line 3, column a: 'x' is no number"),
            ("a,b\n1_0,2\n3,4\n", "line 2, column a: '1_0' is no number"),
            ("a;b\n1,5;2\n3,5;4\n", "has a decimal comma"),
            ("a,b\n1,2\n3,4\n5,no\n", "holds both numbers (line 2) and text ('no' in line 4)"),
            ('a,b\n1,"2\n' + "3,4\n" * 99_000, "damaged as a table"),
            ("a,b\n1,\x1b[31m\nx,\x1b[32m\n", "line 3, column a"),
            (b"a,b\n1,caf\xe9\n2,x\n", "not in utf-8 (byte 0xe9)"),
            ("a,b\n" + "".join(f"{k},w{k}\n" for k in range(10_002)), "more than 10,000 words"),
        ],
    )
    def test_cells_and_rows_by_their_place(self, text, what, folder):
        path = written(folder, text)
        with pytest.raises(LoadError) as caught:
            read(path, header=True)
        assert what in caught.value.what
        assert caught.value.hint
        assert str(caught.value).isprintable() or "\n  try: " in str(caught.value)
        assert "\x1b" not in str(caught.value)

    def test_columns_and_options(self, iris):
        for text in (f"{iris}#nope", f"{iris}(inputs=('sepal', 'nope'))", f"{iris}(size=3)", f"{iris}(shuffle=2)",
                     f"{iris}(inputs=())", f"{iris}#9"):  # fmt: skip
            with pytest.raises(SpecError):
                load(text)
        with pytest.raises(SpecError, match="there is sepal, petal, width, species"):
            load(f"{iris}#nope")
        with pytest.raises(SpecError, match=r"no column of .* is left"):
            load(f"{iris}#sepal,petal,width,species")

    def test_other_files_take_no_options(self, folder):
        np.savez(folder / "b.npz", x=np.ones((2, 3)), y=np.zeros(2, int))
        torch.save(nn.Linear(3, 2), folder / "m.pt")
        with pytest.raises(SpecError, match="no option 'size'"):
            load(folder / "b.npz(size=3)", str(folder / "m.pt"))
        with pytest.raises(SpecError, match="takes no options"):
            load("b.npz", f"{folder}/m.pt(width=3)")

    def test_a_header_alone_and_nothing(self, folder):
        with pytest.raises(LoadError, match="no row of numbers"):
            read(written(folder, "a,b\n1,2\n"), header=True, shuffle=False, most=0)
        for text in ("", "a\n1\n2\n", "{}\n{}\n", "<a>,b\n<c>,d\n", "words and\nmore words, here\n"):
            assert form_of(written(folder, text)) is None

    def test_random_bytes_are_refused_in_a_line(self, folder):
        source = random.Random(0)
        torch.save(nn.Linear(2, 2), folder / "m.pt")
        alphabet = [b"1", b"2", b",", b"\n", b"a", b'"', b"\0", b"\xff", b" ", b"\r", b";", b"-", b".", b"#"]
        said = []
        for _ in range(400):
            path = written(folder, b"".join(source.choices(alphabet, k=source.randrange(60))))
            try:
                load(path, str(folder / "m.pt"))
            except HessdiagError as error:
                said.append(error.what)
        assert said
        assert [what for what in said if not what.isprintable()] == []

    def test_no_more_is_read_than_is_needed(self, folder, monkeypatch):
        from hessdiag.problem.files import lines

        path = written(folder, "".join(f"{k},{k}\n" for k in range(200_000)))
        given = []
        rows = lines.rows
        monkeypatch.setattr(tables, "rows", lambda *args: (given.append(1) or row for row in rows(*args)))
        table = read(path, shuffle=False, most=10)
        assert len(table) == 10
        assert table.total is None
        assert len(given) <= 12
        assert read(path, most=10).total == 200_000
