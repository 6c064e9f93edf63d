"""A log is read whatever happened to the run; and curves arrive at TensorBoard and Weights & Biases."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import hessdiag
from hessdiag.errors import LoadError, SpecError
from hessdiag.monitor.log import read


def parts(width=3):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, width)
    x, y = torch.randn(16, 4), torch.randint(width, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return hessdiag.Problem(model, data=[(x, y)], loss="ce"), optimizer


def monitor(log=None, width=3, **options):
    problem, optimizer = parts(width)
    return hessdiag.Monitor(problem, 2, None, optimizer=optimizer, log=log, **options)


def strict(line):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(line, parse_constant=refuse)


def test_a_line_for_each_look(tmp_path):
    path = tmp_path / "run.jsonl"
    with monitor(path) as watched:
        for _ in range(5):
            watched.step()
    lines = [strict(line) for line in path.read_text().splitlines()]
    assert lines[0]["schema"] == "hessdiag-run/1"
    assert lines[0]["problem"]["parameters"] == 15
    assert lines[0]["optimizer"] == {"kind": "SGD", "settings": {"lr": 0.1}}
    assert [line["step"] for line in lines[1:]] == [2, 4]
    reading = lines[1]["readings"]["lambda_max"]
    assert reading.keys() == {"value", "stderr", "converged", "products", "seconds"}
    assert lines[1]["products"] == reading["products"]
    assert lines[1]["readings"]["gradient_norms"]["layers"].keys() == {"Linear"}
    assert watched.step() is None  # closed
    header, records = read(path)
    assert header == lines[0]
    assert records == lines[1:]


def test_the_same_lines_go_to_a_function(tmp_path):
    lines = []
    watched = monitor(lines.append)
    for _ in range(4):
        watched.step()
    assert [line.get("step") for line in lines] == [None, 2, 4]
    assert lines[2] == watched.records[-1].line()


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "run.jsonl"
    monitor(path).close()
    with pytest.raises(SpecError, match="resume=True"):
        monitor(path)


def test_a_run_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    with monitor(path) as watched:
        for _ in range(4):
            watched.step()
    with path.open("a") as file:
        file.write('{"step": 6, "readi')  # killed within a line
    with monitor(path, resume=True) as watched:
        assert [watched.step() and 1 for _ in range(2)] == [None, 1]
    with monitor(path, resume=True) as watched:
        assert watched.step(11) is None  # numbers of one's own
        assert watched.step(12).step == 12
    _, lines = read(path)
    assert [line.get("step", "resumed") for line in lines] == [2, 4, "resumed", 6, "resumed", 12]
    assert lines[2]["resumed"]["versions"]["torch"] == torch.__version__


def test_another_run_is_not_added_to(tmp_path):
    path = tmp_path / "run.jsonl"
    monitor(path).close()
    with pytest.raises(SpecError, match=r"of another run: parameters, layers, data_sha256 differ"):
        monitor(path, width=4, resume=True)
    with pytest.raises(SpecError, match="quantities differs"):
        monitor(path, quantities=["loss"], resume=True)


@pytest.mark.parametrize("text", ["", "{}\n", '{"schema": "hessdiag/1"}\n', "[1]\n", "words\n"])
def test_what_is_no_log_is_not_read(tmp_path, text):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(LoadError):
        read(path)


def test_numbers_that_json_has_no_form_for(tmp_path):
    problem, optimizer = parts()
    path = tmp_path / "run.jsonl"
    watched = hessdiag.Monitor(problem, 1, None, optimizer=optimizer, log=path, quantities=["gradient_norms"])
    with torch.no_grad():
        problem.model.weight.fill_(torch.nan)
    with pytest.warns(RuntimeWarning, match="gradient_norms failed at step 1, and training goes on: NotFiniteError"):
        watched.step()
    assert "not" in strict(path.read_text().splitlines()[1])["failed"]["gradient_norms"].lower()


def test_a_killed_run_leaves_a_readable_file(tmp_path):
    script = textwrap.dedent("""
        import os, signal, torch, hessdiag
        model = torch.nn.Linear(4, 3)
        problem = hessdiag.Problem(model, data=[(torch.randn(16, 4), torch.randint(3, (16,)))], loss="ce")
        monitor = hessdiag.Monitor(problem, 1, None, log="run.jsonl")
        for step in range(3):
            monitor.step()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert [line["step"] for line in read(tmp_path / "run.jsonl")[1]] == [1, 2, 3]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path / "writer")
    watched = [monitor(tensorboard=tmp_path / "folder"), monitor(tensorboard=writer)]
    for one in watched:
        for _ in range(4):
            one.step()
        one.close()
    writer.add_scalar("mine", 1.0, 0)  # a writer of the user's stays open
    writer.close()
    for name in ("folder", "writer"):
        events = EventAccumulator(str(tmp_path / name)).Reload()
        found = events.Scalars("hessdiag/lambda_max")
        assert [event.step for event in found] == [2, 4]
        values = [record.value("lambda_max") for record in watched[0].records]
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
        assert {"hessdiag/loss", "hessdiag/sharpness", "hessdiag/sharpness_threshold"} <= set(events.Tags()["scalars"])


def test_weights_and_biases(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    run = wandb.init(mode="offline", dir=str(tmp_path), project="test", settings=wandb.Settings(silent=True))
    watched = monitor(wandb=run)
    logged = []
    monkeypatch.setattr(run, "log", lambda *args, log=run.log, **kw: (logged.append((args, kw)), log(*args, **kw)))
    for step in range(4):
        run.log({"loss": 1.0 / (step + 1)})
        watched.step()
    steps = run.step
    run.finish()
    mine = [args[0] for args, kw in logged if kw.get("commit") is False]
    assert steps == 4  # the user's own: none was added
    assert [one["hessdiag/step"] for one in mine] == [2, 4]
    assert mine[0]["hessdiag/lambda_max"] == watched.records[0].value("lambda_max")
    assert list(tmp_path.rglob("*.wandb"))


@pytest.mark.parametrize("options", [{"tensorboard": 3}, {"wandb": object()}, {"log": 3}])
def test_what_cannot_be_written_to_is_refused(options):
    with pytest.raises(SpecError):
        monitor(**options)
