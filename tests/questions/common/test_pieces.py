"""A run that was interrupted and taken up again gives the numbers of one that was not."""

import contextlib
import dataclasses
import json
import os
import threading
import time

import numpy as np
import pytest
import torch

from hessdiag import Problem, ProblemRequest, forward, forward_model, load_problem, vanishing, vanishing_of
from hessdiag.errors import LoadError, SpecError
from hessdiag.machine import capacity
from hessdiag.questions.common.runs.identity import identity
from hessdiag.questions.common.runs.pieces import Pieces, PiecesWarning

FCN = "builtin:fcn(depth={}, channels=4, resolution=7)"


def fcn(depth, seed):
    return load_problem(ProblemRequest(FCN.format(depth), device="cpu", seed=seed, batch_size=2))


def on_fcn(**options):
    return forward_model(fcn(3, 0), **options)


RUNS = {
    "vanishing": (vanishing, {"depth": 8, "width": 10, "seeds": 12, "hessian_seeds": 8, "batch": 3}),
    "products": (vanishing, {"depth": 3, "width": 20, "seeds": 6, "activation": "tanh"}),
    "model": (vanishing_of, {"build": fcn, "depth": 5, "seeds": 4, "hessian_seeds": 2, "init": "he_normal"}),
    "forward": (forward, {"depth": 5, "width": 6, "seeds": 60}),
    "solve": (forward, {"depth": 5, "width": 6, "seeds": 60, "activation": "tanh", "solve": "median"}),
    "forward model": (on_fcn, {"seeds": 5, "init": ["lecun", "he_normal"], "solve": "median"}),
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr("hessdiag.questions.forward.norms.CHUNK_NUMBERS", 20 * 6**2)
    monkeypatch.setattr("hessdiag.machine.capacity.CPU", dataclasses.replace(capacity.CPU, pair_numbers=2400))
    monkeypatch.setattr("hessdiag.questions.vanishing.norms.CHUNK_NUMBERS", 8000)
    monkeypatch.setattr("hessdiag.questions.vanishing.norms.EXACT_WORK", 1e6)


def numbers_of(found):
    """A result without how it came to be."""
    return {
        key: value for key, value in dataclasses.asdict(found).items() if key not in ("provenance", "resumed_pieces")
    }


def stop_after(calls):
    seen = []

    def progress(done, total, what):
        seen.append(done)
        if len(seen) > calls:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_where_it_stopped(name, tmp_path):
    measure, options = RUNS[name]
    whole = measure(**options)
    for calls in (6, 14) if measure is forward else (2, 4):  # forward counts layers
        with contextlib.suppress(KeyboardInterrupt):  # raised where nothing was complete
            assert measure(**options, resume=tmp_path, progress=stop_after(calls)).status == "interrupted"
    kept = len(list(tmp_path.glob("*.npz")))
    resumed = measure(**options, resume=tmp_path)
    assert resumed.resumed_pieces == kept > 0
    assert numbers_of(resumed) == numbers_of(whole)
    assert (resumed.checks, resumed.findings, resumed.status) == (whole.checks, whole.findings, whole.status)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert measure(**options, resume=tmp_path).resumed_pieces == len(written) - 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written  # nothing is computed again


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("vanishing", {"seed": 1}, "seed was 0 and is 1"),
        ("vanishing", {"width": 7}, "width was 10 and is 7"),
        ("vanishing", {"depth": 9}, "depths was"),
        ("vanishing", {"init": "lecun"}, 'init was "he_uniform" and is "lecun"'),
        ("model", {"init": "lecun"}, "init was"),
        ("model", {"build": lambda depth, seed: fcn(depth, seed + 1)}, "other data sha256"),
        ("forward", {"distribution": "normal"}, 'distribution was null and is "normal"'),
        ("forward model", {"seeds": 6}, "seeds was 5 and is 6"),
    ],
)
def test_other_settings_are_refused(name, change, says, tmp_path):
    measure, options = RUNS[name]
    with pytest.raises(KeyboardInterrupt):
        measure(**options, resume=tmp_path, progress=stop_after(0))
    with pytest.raises(SpecError, match=says) as refused:
        measure(**options | change, resume=tmp_path)
    assert refused.value.hint.startswith("--resume ")


def test_a_model_that_changed_is_noticed(tmp_path):
    problem = fcn(3, 0)
    forward_model(problem, seeds=2, init="lecun", resume=tmp_path)
    for other, says in ((fcn(3, 1), "other"), (fcn(4, 0), "other|spec was")):
        with pytest.raises(SpecError, match=says):
            forward_model(other, seeds=2, init="lecun", resume=tmp_path)
    changed = Problem(problem.model, [(2 * x, y) for x, y in problem.data], "mse", source=problem.source)
    with pytest.raises(SpecError, match="other data sha256"):
        forward_model(changed, seeds=2, init="lecun", resume=tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SpecError, match=r"holds other files \(thesis.txt\)"):
        Pieces(tmp_path, {})
    with pytest.raises(SpecError, match="is a file"):
        Pieces(tmp_path / "thesis.txt", {})
    with pytest.raises(LoadError, match="cannot use"):
        Pieces(tmp_path / "thesis.txt" / "below", {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_piece_is_computed_again(tmp_path):
    Pieces(tmp_path / "a" / "b", {"seed": 0}).get("one", lambda: {"x": np.ones(3)})
    path = tmp_path / "a" / "b" / "one.npz"
    for content in (b"", path.read_bytes()[:40]):
        path.write_bytes(content)
        pieces = Pieces(tmp_path / "a" / "b", {"seed": 0})
        assert pieces.get("one", lambda: {"x": np.zeros(2)})["x"].tolist() == [0, 0]
        assert pieces.taken == 0
    (path.parent / "settings.json").write_text("{")
    with pytest.raises(SpecError, match="cannot be read"):
        Pieces(path.parent, {"seed": 0})


def _without(path, name):
    """Leave an array out of a piece, as code that did not know of it would have."""
    with np.load(path) as file:
        arrays = {other: file[other] for other in file.files if other != name}
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("name", "pieces", "array"), [("vanishing", "depth-4-hessians-", "trace"), ("model", "depth-2-network-", "padding")]
)
def test_pieces_that_lack_what_newer_code_wants_are_refused(name, pieces, array, tmp_path):
    measure, options = RUNS[name]
    kept = tmp_path / "kept"
    measure(**options, resume=kept)
    for path in kept.glob(f"{pieces}*"):
        _without(path, array)
    with pytest.raises(SpecError, match=rf"{pieces}.*\.npz has no {array}: ") as refused:
        measure(**options, resume=kept)
    assert refused.value.hint == f"--resume with another folder, or delete {kept}"


def test_a_state_that_lacks_an_array_is_refused(tmp_path):
    Pieces(tmp_path, {}).state("loop").save(2, lambda: {"x": np.ones(1), "y": np.ones(1)}, last=True)
    _without(tmp_path / "loop.npz", "y")
    state = Pieces(tmp_path, {}).state("loop")
    assert (state.units, state.arrays["x"].tolist()) == (2, [1])
    with pytest.raises(SpecError, match=r"loop\.npz has no y: "):
        _ = state.arrays["y"]


def test_no_other_version_is_taken_up(tmp_path, monkeypatch):
    Pieces(tmp_path, {})
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.__version__", "0.0.9")
    with pytest.raises(SpecError, match=r'hessdiag was "0\.1\.0" and is "0\.0\.9"'):
        Pieces(tmp_path, {})


def test_an_interrupted_piece_leaves_nothing(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pieces(tmp_path, {}).get("one", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def _one(folder, settings, value=1.0, name="one"):
    pieces = Pieces(folder, settings)
    return float(pieces.get(name, lambda: {"x": np.full(3, value)})["x"][0]), pieces


def test_pieces_of_another_run_or_name_are_computed_again(tmp_path):
    _one(tmp_path / "a", {"seed": 0})
    _one(tmp_path / "b", {"seed": 1})
    mine, foreign = (tmp_path / folder / "one.npz" for folder in "ab")
    whole = mine.read_bytes()
    (tmp_path / "a" / "two.npz").write_bytes(whole)
    assert _one(tmp_path / "a", {"seed": 0}, 2.0, "two")[0] == 2.0
    unmarked, packed = tmp_path / "unmarked.npz", tmp_path / "packed.npz"
    np.savez(unmarked, x=np.ones(3))
    np.savez_compressed(packed, **np.load(mine))
    flipped = bytearray(whole)
    flipped[whole.index(np.ones(3).tobytes())] ^= 1
    for content in (foreign.read_bytes(), unmarked.read_bytes(), packed.read_bytes(), bytes(flipped), b"x" * 99):
        mine.write_bytes(content)
        found, pieces = _one(tmp_path / "a", {"seed": 0}, 2.0)
        assert found == 2.0
        assert pieces.taken == 1  # the piece called two
    mine.write_bytes(whole)
    assert _one(tmp_path / "a", {"seed": 0}, 2.0)[0] == 1.0


def test_what_differs_is_named_and_hashes_are_not_shown(tmp_path):
    Pieces(tmp_path, {"command": "eigs", "weights_sha256": "aa", "rows": None})
    with pytest.raises(SpecError, match=r"another run: other weights sha256\."):
        Pieces(tmp_path, {"command": "eigs", "weights_sha256": "bb", "rows": 3})
    with pytest.raises(SpecError, match=r'another run: command was "eigs" and is "blocks"\.'):
        Pieces(tmp_path, {"command": "blocks", "weights_sha256": "bb"})


def test_a_state_is_replaced_and_counts_its_units(tmp_path, monkeypatch):
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_EVERY", 0.0)
    state = Pieces(tmp_path, {}).state("loop")
    assert (state.units, state.arrays) == (0, {})
    for units in (1, 2):
        state.save(units, lambda units=units: {"x": np.arange(units)}, last=True)
    pieces = Pieces(tmp_path, {})
    state = pieces.state("loop")
    assert (state.units, state.arrays["x"].tolist(), pieces.taken) == (2, [0, 1], 2)
    (tmp_path / "loop.npz").write_bytes(b"")
    pieces = Pieces(tmp_path, {})
    assert (pieces.state("loop").units, pieces.taken) == (0, 0)


def test_a_state_is_saved_when_enough_work_was_done(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.time.monotonic", lambda: now[0])
    state, saved = Pieces(tmp_path, {}).state("loop"), []

    def arrays():
        now[0] += 1.0  # a second to write
        saved.append(now[0])
        return {}

    for _ in range(100):
        now[0] += 1.0
        state.save(1, arrays)
    assert 5 <= len(saved) <= 7  # a second in twenty
    state.save(1, arrays, last=True)
    assert saved[-1] == now[0]


def test_a_choice_of_the_first_run_stays_and_is_no_piece(tmp_path):
    assert Pieces(tmp_path, {}).choice("vectors", lambda: 64) == 64
    again = Pieces(tmp_path, {})
    assert (again.choice("vectors", lambda: 8), again.taken) == (64, 0)


def test_a_full_disk_ends_the_keeping_and_not_the_work(tmp_path, monkeypatch):
    pieces = Pieces(tmp_path, {})

    def full(path, fill, first=False):
        raise LoadError(f"cannot write {path.name}: No space left on device.")

    monkeypatch.setattr("hessdiag.questions.common.runs.pieces._write", full)
    with pytest.warns(PiecesWarning, match=r"cannot write one.npz: No space .* nothing is kept"):
        assert pieces.get("one", lambda: {"x": np.ones(1)})["x"].tolist() == [1]
    assert pieces.get("two", lambda: {"x": np.ones(1)})["x"].tolist() == [1]
    assert not pieces.kept


def test_unfinished_files_of_killed_processes_are_removed_in_time(tmp_path):
    old, new = tmp_path / ".one.npz.1-aa.part", tmp_path / ".one.npz.2-bb.part"
    for path, age in ((old, 7200), (new, 10)):
        path.write_bytes(b"")
        os.utime(path, (time.time() - age,) * 2)
    Pieces(tmp_path, {})
    assert (old.exists(), new.exists()) == (False, True)


def test_two_runs_that_start_at_once_agree_on_the_folder(tmp_path):
    """Many threads open the same folder for one of two settings: one setting wins, and all others are refused."""
    barrier, outcomes = threading.Barrier(8), []

    def start(index):
        barrier.wait()
        try:
            found, _ = _one(tmp_path / "kept", {"seed": index % 2}, float(index % 2))
            outcomes.append((index % 2, found))
        except SpecError:
            outcomes.append((index % 2, None))

    threads = [threading.Thread(target=start, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = {seed for seed, found in outcomes if found is not None}
    assert len(won) == 1
    assert all(found in (None, float(seed)) for seed, found in outcomes)
    assert sum(found is not None for _, found in outcomes) == 4


def _scaled(scale):
    model = torch.nn.Linear(2, 1).double()
    torch.nn.init.ones_(model.weight)
    return Problem(model, [(torch.ones(3, 2).double(), torch.ones(3, 1).double())], lambda o, t: scale * (o - t).mean())


def test_a_problem_is_known_by_its_numbers_and_its_code(tmp_path):
    torch.manual_seed(0)
    same = identity(_scaled(1.0))
    torch.manual_seed(0)
    assert identity(_scaled(1.0)) == same == json.loads(json.dumps(same))
    torch.manual_seed(0)
    other = identity(_scaled(2.0))  # the same code, another number in its closure
    assert {name for name in same if same[name] != other[name]} == {"loss_at_the_weights"}
    place = tmp_path / "own.py"
    found = []
    for text in (
        "def f(m, b):\n    return m[0].weight.sum() ** 2\n",
        "def f(m, b):\n    return m[0].weight.sum() ** 3\n",
    ):
        place.write_text(text)
        torch.manual_seed(0)
        function = load_problem(ProblemRequest("builtin:mlp(depth=2, width=2)", objective=f"{place}:f", device="cpu"))
        found.append(identity(function)["code_sha256"])
    assert found[0] != found[1]
