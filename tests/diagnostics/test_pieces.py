"""A run that was interrupted and taken up again gives the numbers of one that was not."""

import contextlib

import numpy as np
import pytest

from hessdiag import Problem, ProblemRequest, forward, forward_model, load_problem, vanishing, vanishing_of
from hessdiag.diagnostics.pieces import Pieces
from hessdiag.errors import LoadError, SpecError

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
    monkeypatch.setattr("hessdiag.diagnostics.forward_norms.CHUNK_NUMBERS", 20 * 6**2)
    monkeypatch.setattr("hessdiag.diagnostics.vanishing_norms.CACHE_NUMBERS", 2400)
    monkeypatch.setattr("hessdiag.diagnostics.vanishing_norms.CHUNK_NUMBERS", 8000)
    monkeypatch.setattr("hessdiag.diagnostics.vanishing_norms.EXACT_WORK", 1e6)


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
    assert resumed.to_result() == whole.to_result()
    assert (resumed.checks, resumed.verdict, resumed.status) == (whole.checks, whole.verdict, whole.status)
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


def test_no_other_version_is_taken_up(tmp_path, monkeypatch):
    Pieces(tmp_path, {})
    monkeypatch.setattr("hessdiag.diagnostics.pieces.__version__", "0.0.9")
    with pytest.raises(SpecError, match=r'hessdiag was "0\.1\.0" and is "0\.0\.9"'):
        Pieces(tmp_path, {})


def test_an_interrupted_piece_leaves_nothing(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pieces(tmp_path, {}).get("one", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
