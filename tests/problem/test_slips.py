"""Messages about what users hand over by mistake, and TorchScript's own ways."""

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.load import ProblemRequest, load_problem


def refused(model, **options):
    with pytest.raises((LoadError, SpecError)) as caught:
        load_problem(ProblemRequest(model, device="cpu", **options))
    return caught.value


def test_layers_of_a_torchscript_archive_keep_their_class(tmp_path):
    torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.Tanh())).save(tmp_path / "ts.pt")
    np.savez(tmp_path / "b.npz", x=np.ones((4, 3), "f4"), y=np.zeros((4, 2), "f4"))
    request = ProblemRequest(str(tmp_path / "ts.pt"), data=str(tmp_path / "b.npz"), device="cpu", trust_code=True)
    assert [(layer.name, layer.kind) for layer in load_problem(request).layer_slices] == [("0", "Linear")]


def test_an_address_is_no_model():
    error = refused("https://example.org/model.pt")
    assert error.exit_code == 2
    assert "downloads nothing" in error.what


def test_a_single_array_is_told_how_to_be_saved(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 3)))
    assert "savez" in refused("builtin:mlp", data=str(tmp_path / "x.npy")).hint


def test_arguments_that_a_network_takes_are_shown_without_types():
    hint = refused("builtin:mlp(widht=8)").hint
    assert hint.startswith("mlp(depth=4, width=32")
    assert ":" not in hint


def test_a_syntax_error_names_its_line_once(tmp_path):
    (tmp_path / "bad.py").write_text("def f(:\n")
    assert refused(f"{tmp_path / 'bad.py'}:f").what.count("bad.py") == 2  # whose file, and where


def test_an_objective_that_takes_a_mapping_for_a_pair_is_shown_the_mapping(tmp_path):
    np.savez(tmp_path / "b.npz", x=np.ones((4, 3), "f4"), y=np.zeros(4, int))
    (tmp_path / "net.py").write_text(
        "import torch\nmodel = torch.nn.Linear(3, 2)\ndef f(model, batch):\n    x, y = batch\n    return model(x).sum()\n"
    )
    error = refused(f"{tmp_path / 'net.py'}:model", data=str(tmp_path / "b.npz"), objective=f"{tmp_path / 'net.py'}:f")
    assert "a mapping of x: (4, 3) float32, y: (4,) int64" in error.what


def test_a_function_that_reads_the_command_line_is_told_from_one_that_builds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hessdiag", "check", "train.py:main"])
    lines = ["import argparse", "def main():", "    argparse.ArgumentParser('train').parse_args()"]
    (tmp_path / "train.py").write_text("\n".join(lines))
    with pytest.raises(LoadError, match="raised SystemExit") as caught:
        load_problem(ProblemRequest(model=f"{tmp_path}/train.py:main"))
    assert "builds the model and reads no command line" in caught.value.hint


def test_a_file_without_a_model_is_answered_with_what_holds_one(tmp_path):
    torch.save({"a": 1}, tmp_path / "a.pt")
    error = refused(str(tmp_path / "a.pt"))
    assert "holds no model" in error.what
    assert error.hint == "a file of torch.save(model, FILE), or 'train.py:build_model'"


def test_a_dtype_that_is_none_is_answered_with_one():
    error = refused("builtin:mlp", dtype="double")
    assert (error.exit_code, error.hint) == (2, "--dtype float64")
    assert "float32, float64, bfloat16, float16" in error.what


def test_text_alone_names_a_model():
    assert hessdiag.load_problem("builtin:mlp(depth=2, width=3)").n_parameters == 18


def test_a_problem_is_shown_in_one_line():
    problem = hessdiag.Problem(nn.Linear(999, 2), data=[(torch.ones(2, 999), torch.ones(2, 2))] * 2, loss="mse")
    assert repr(problem) == "<Problem of Linear: 2,000 parameters, mse of 2 batches>"
