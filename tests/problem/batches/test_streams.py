"""DataLoaders as people have them: workers, samplers, random numbers, no end, samples by name."""

import multiprocessing
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import hessdiag
from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.batches import streams
from hessdiag.problem.batches.data import ALL, as_batches
from hessdiag.problem.batches.known import shuffled
from hessdiag.problem.load import ProblemRequest, load_problem

X, Y = torch.arange(24.0).reshape(12, 2), torch.arange(12) % 3
DATASET = TensorDataset(X, Y)
DRAWS = "loading draws random numbers"


def firsts(value, **options):
    return [batch[0][:, 0].tolist() for batch in as_batches(value, **options)[0]]


def notes(value, **options):
    return " ".join(as_batches(value, **options)[1])


class Noisy(Dataset):
    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return X[index] + float(self.draw()), Y[index]


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield X[0], Y[0]


class TestWorkers:
    @pytest.mark.parametrize("options", [
        {"num_workers": 3}, {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4, "timeout": 9},
        {"num_workers": 1, "multiprocessing_context": "spawn"}, {"pin_memory": True}, {"num_workers": 2, "in_order": False},
    ])  # fmt: skip
    def test_no_process_is_started(self, options, monkeypatch):
        def refused(*_, **__):
            raise AssertionError("a worker process was started")

        monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refused)
        loader = DataLoader(DATASET, batch_size=5, **options)
        assert firsts(loader, batches=ALL) == [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18], [20, 22]]
        workers = options.get("num_workers", 0)
        assert (f"without the loader's {workers} worker processes" in notes(loader)) == bool(workers)
        assert loader.num_workers == workers
        assert loader.pin_memory == options.get("pin_memory", False)

    def test_iterable_datasets_that_share_among_workers_give_all(self):
        class Shared(IterableDataset):
            def __iter__(self):
                info = torch.utils.data.get_worker_info()
                start, step = (info.id, info.num_workers) if info else (0, 1)
                yield from ((X[k], Y[k]) for k in range(start, 12, step))

        assert firsts(DataLoader(Shared(), batch_size=6, num_workers=3), batches=ALL) == [
            [0, 2, 4, 6, 8, 10], [12, 14, 16, 18, 20, 22],
        ]  # fmt: skip


class TestOrder:
    @pytest.mark.parametrize("make", [
        lambda: DataLoader(DATASET, 4, shuffle=True),
        lambda: DataLoader(DATASET, 4, shuffle=True, generator=torch.Generator().manual_seed(3)),
        lambda: DataLoader(DATASET, 4, sampler=WeightedRandomSampler([1.0] * 12, 12)),
        lambda: DataLoader(DATASET, batch_sampler=BatchSampler(RandomSampler(DATASET), 4, True)),
    ])  # fmt: skip
    def test_shuffling_loaders_give_the_same_twice(self, make):
        loader = make()
        torch.manual_seed(random.randrange(10**6))
        before = torch.get_rng_state()
        first = firsts(loader, batches=ALL, seed=5)
        assert torch.equal(before, torch.get_rng_state())
        assert first == firsts(loader, batches=ALL, seed=5) == firsts(make(), batches=ALL, seed=5)
        assert first[0] != [0, 2, 4, 6]
        assert DRAWS not in notes(loader)
        if loader.generator is None:
            assert first != firsts(loader, batches=ALL, seed=6)

    def test_the_order_is_that_of_the_loader_itself(self):
        loader = DataLoader(DATASET, 4, shuffle=True)
        torch.manual_seed(7)
        expected = [x[:, 0].tolist() for x, _ in loader]
        assert firsts(loader, batches=ALL, seed=7) == expected

    def test_the_users_own_generator_is_where_it_was(self):
        generator = torch.Generator().manual_seed(3)
        before = generator.get_state()
        as_batches(DataLoader(DATASET, 4, shuffle=True, generator=generator), batches=2)
        assert torch.equal(before, generator.get_state())

    def test_drop_last_and_no_batching(self):
        assert len(firsts(DataLoader(DATASET, 5, drop_last=True), batches=ALL)) == 2
        whole = DataLoader([(X, Y), (X[:3], Y[:3])], batch_size=None)
        assert [len(x) for x in firsts(whole, batches=ALL)] == [12, 3]

    def test_a_class_made_of_dataloader(self):
        class Own(DataLoader):
            def __iter__(self):
                for x, y in super().__iter__():
                    yield 2 * x, y

        assert firsts(Own(DATASET, 6, num_workers=2)) == [[0, 4, 8, 12, 16, 20]]

    def test_lazy_shuffling_is_uniform(self):
        counts = np.zeros((4, 4))
        for seed in range(4000):
            for place, number in enumerate(shuffled(4, seed)):
                counts[place, number] += 1
        assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # chi squared with 9 degrees of freedom, p = 0.001
        assert next(shuffled(10**15, 0)) < 10**15


class TestRandomNumbers:
    @pytest.mark.parametrize("draw", [lambda: torch.rand(1), random.random, np.random.rand])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_augmentation_is_said_and_repeatable(self, draw, shuffle):
        loader = DataLoader(Noisy(draw), 4, shuffle=shuffle)
        assert DRAWS in notes(loader)
        assert firsts(loader, batches=ALL) == firsts(loader, batches=ALL)
        assert DRAWS not in notes(DataLoader(DATASET, 4, shuffle=shuffle))

    def test_collating_that_draws(self):
        loader = DataLoader(DATASET, 4, collate_fn=lambda rows: (torch.rand(len(rows), 2), torch.zeros(len(rows))))
        assert DRAWS in notes(loader)


class TestEnds:
    def test_the_first_batch_of_what_has_no_end(self):
        assert firsts(DataLoader(Endless(), 3)) == [[0, 0, 0]]
        assert len(firsts(DataLoader(Endless(), 3), batches=7)) == 7

    def test_all_of_what_has_no_end(self, monkeypatch):
        monkeypatch.setattr(streams, "ENDLESS", 50)
        with pytest.raises(LoadError, match="go on after 50 batches") as caught:
            as_batches(DataLoader(Endless(), 3), batches=ALL)
        assert caught.value.hint == "--batches 100"

    def test_more_than_the_memory_is_known_from_the_first_batch(self, monkeypatch):
        read = []

        class Large(Dataset):
            def __len__(self):
                return 10**9

            def __getitem__(self, index):
                read.append(index)
                return torch.zeros(1000), 0

        monkeypatch.setattr(streams, "free_bytes", lambda: 10**9)
        with pytest.raises(LoadError, match=r"batches of 0\.128 MB each do not fit the memory, of which 1 GB"):
            as_batches(DataLoader(Large(), 32), batches=ALL)
        assert len(read) == 32
        assert len(as_batches(DataLoader(Large(), 32), batches=3)[0]) == 3

    def test_lengths_that_lie(self):
        class Odd:
            def __len__(self):
                raise NotImplementedError

            def __iter__(self):
                return iter([2, 0, 1])

        assert "the first batch was taken" in notes(DataLoader(DATASET, 2, sampler=Odd()))


class TestSamples:
    def test_pictures_without_a_transform(self):
        image = pytest.importorskip("PIL.Image")
        with pytest.raises(LoadError, match="cannot be put into one batch") as caught:
            as_batches([(image.new("L", (2, 2)), 0)] and DataLoader([(image.new("L", (2, 2)), 0)] * 3, 2))
        assert "ToTensor" in caught.value.hint

    def test_samples_of_different_sizes(self):
        with pytest.raises(LoadError, match="cannot be put into one batch") as caught:
            as_batches(DataLoader([(torch.zeros(k), 0) for k in (2, 3)], 2))
        assert "collate_fn" in caught.value.hint

    def test_samples_by_name(self, folder):
        (folder / "t.py").write_text(
            "import torch\nfrom torch import nn\nfrom torch.utils.data import DataLoader\n"
            "rows = [{'image': torch.ones(2) * k, 'label': k % 3, 'file': f'{k}.png'} for k in range(9)]\n"
            "dataset = rows\nloader = DataLoader(rows, 4)\ndef model(): return nn.Linear(2, 3)\n"
        )
        problem = load_problem(ProblemRequest("t.py:model", data="t.py:loader", device="cpu"))
        assert problem.data[0][1].tolist() == [0, 1, 2, 0]
        assert "data: image is the input, label the target" in problem.notes
        assert "data: file left out, which holds no numbers" in problem.notes


class TestInPython:
    def test_a_problem_takes_the_first_batch_of_a_loader(self):
        problem = hessdiag.Problem(nn.Linear(2, 3), data=DataLoader(DATASET, 5, num_workers=2), loss="ce")
        assert problem.n_samples == 5
        assert "data: the first batch of 3 was taken; a list of batches takes more" in problem.notes
        assert hessdiag.Problem(nn.Linear(2, 3), data=DATASET, loss="ce").n_samples == 12
        assert hessdiag.Problem(nn.Linear(2, 3), data=DATASET, loss="ce").like(seed=3).n_samples == 12

    def test_text_is_no_batch(self):
        with pytest.raises(SpecError, match="names a place") as caught:
            hessdiag.Problem(nn.Linear(2, 3), data="iris.csv", loss="ce")
        assert "hessdiag.read_data('iris.csv', model)" in caught.value.hint

    def test_read_data(self, folder):
        (folder / "t.csv").write_text("".join(f"{k},{k + 1},{k % 3}\n" for k in range(40)))
        model = nn.Linear(2, 3)
        batches, said = hessdiag.read_data("./t.csv", model, batches=2, batch_size=8)
        problem = hessdiag.Problem(model, data=batches, loss="ce", notes=said)
        assert (problem.n_samples, problem.dtype) == (16, torch.float32)
        assert batches[0][0].dtype == torch.float32
        assert any("not standardized" in note for note in problem.notes)
        np.savez(folder / "b.npz", x=np.ones((4, 2)), y=np.zeros(4, int))
        assert len(hessdiag.read_data("b.npz", model)[0]) == 1
        with pytest.raises(SpecError, match="is no path"):
            hessdiag.read_data("builtin:digits", model)
