"""Every example runs as its own docstring says, and what it measures makes sense."""

import itertools
import json
import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import hessdiag
from hessdiag.questions import documents

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def run(programs):
    return lambda script, *arguments: printed(programs, script, *arguments)


def printed(programs: Path, script: str, *arguments: str) -> str:
    command = [programs / "python", str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


@pytest.fixture(scope="module")
def out(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("digits")
    (folder / "stdout").write_text(run("digits.py", "--out", str(folder), "--checkpoints"))
    return folder


def test_the_last_checkpoint_is_the_trained_network(out):
    last, trained = (torch.load(out / name, weights_only=False) for name in ("epoch-30.pt", "mlp-trained.pt"))
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), trained.parameters(), strict=True))
    assert len(list(out.glob("epoch-*.pt"))) == 5


def test_digits_learn(out):
    accuracies = numbers(r"accuracy ([\d.]+)", (out / "stdout").read_text())
    assert len(accuracies) == 2
    assert all(0.9 < accuracy <= 1 for accuracy in accuracies)


@pytest.mark.parametrize("name", ["mlp-init", "mlp-trained", "cnn-init", "cnn-trained"])
def test_digits_models_load_without_a_flag_and_fit_one_batch(out, name):
    request = hessdiag.ProblemRequest(str(out / f"{name}.pt"), data=str(out / "batch.npz"), loss="ce", device="cpu")
    problem = hessdiag.load_problem(request)
    assert problem.n_samples == 64
    assert problem.n_outputs == 10
    assert problem.n_parameters < 6000
    loss = float(problem.evaluate(problem.data[0]).detach())
    chance = float(torch.log(torch.tensor(10.0)))
    assert loss < 0.5 if "trained" in name else abs(loss - chance) < 0.5


def test_diagnose_digits_puts_all_four_above_wigner(out, run):
    printed = run("diagnose_digits.py", "--out", str(out))
    shares = numbers(r"share ([\d.]+)", printed)
    assert len(shares) == 4
    assert all(0 < share < 1 for share in shares)
    assert all(times > 1 for times in numbers(r"([\d.]+) times Wigner", printed))
    for name in ("mlp", "cnn"):
        page = (out / f"{name}.html").read_text("utf-8")
        assert f"{name}-init.pt" in page
        assert f"{name}-trained.pt" in page


def test_train_is_a_script_and_a_spec(tmp_path, run, programs):
    assert numbers(r"accuracy ([\d.]+)", run("train.py"))[0] > 0.9
    specs = [f"{EXAMPLES / 'train.py'}:setup(width=8, steps={steps})" for steps in (0, 300)]
    command = [programs / "hessdiag", "diag-share", *specs, "--json", "--no-progress"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    doc = documents.loads(done.stdout)
    assert doc["problem"]["synthetic"] is False
    assert doc["problem"]["samples"] == 256
    assert doc["result"]["parameters"] == 2 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3
    before, after = (entry["diag_share"] for entry in doc["result"]["trajectory"])
    assert before != after
    assert min(before, after) > doc["result"]["baselines"]["wigner"]


def test_python_api(run):
    printed = run("python_api.py")
    assert "parameters 195, samples 64" in printed
    assert numbers(r"largest asymmetry ([\d.e+-]+)", printed)[0] < 1e-12
    assert numbers(r"largest difference ([\d.e+-]+)", printed)[0] < 1e-12
    share, wigner = numbers(r"(?:share|, Wigner) ([\d.]+)", printed)[:2]
    assert wigner == pytest.approx(1 / 195, abs=1e-4)
    assert wigner < share < 1
    medians = numbers(r"median gradient norm ([\d.e+-]+)", printed)
    assert len(medians) == 5
    assert medians[-1] < medians[-2]  # 32 layers of width 16 are past the peak


def test_second_derivative_agrees_with_differences(run):
    printed = run("second_derivative.py")
    ours = numbers(r"hessdiag.hessian\s+error ([\d.e+-]+)", printed)
    assert len(ours) == 2
    assert max(ours) < 1e-10


def test_random_hessians_have_the_shares_of_the_formulas(run):
    printed = run("random_hessians.py")
    exact = [float(line.split()[5]) for line in printed.splitlines() if line.startswith("n=")]
    wigner = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("   ")]
    assert (len(exact), len(wigner)) == (6, 4)
    assert max(map(abs, exact + wigner)) < 4


def test_networks_of_adaptive_norms_learn_and_load(tmp_path, run):
    accuracies = numbers(r"accuracy ([\d.]+)", run("train_32x32.py", "--out", str(tmp_path), "--epochs", "0", "1"))
    assert [accuracy > 0.5 for accuracy in accuracies] == [False, True, False, True]
    wide = "builtin:mlp(depth=3, width=128, in_features=3072, out_features=10, activation='tanh', bias=True)"
    for spec, name, parameters in (("builtin:lenet", "lenet", 62_006), (wide, "mlp", 411_146)):
        weights = str(tmp_path / f"{name}-1.pt")
        data = "builtin:digits(size=32, channels=3)"
        problem = hessdiag.load_problem(hessdiag.ProblemRequest(spec, weights=weights, data=data, device="cpu"))
        assert (problem.n_parameters, problem.n_samples, problem.loss) == (parameters, 32, "ce")
        assert float(problem.evaluate(problem.data[0]).detach()) < 1.5


def test_digits_are_drawn_pixel_by_pixel(tmp_path, run):
    lodo = "lodo(alpha=0.01, meta_lr=1e-5, beta=0.9, depth=2)"
    small = (
        "--size",
        "4",
        "--steps",
        "2",
        "--batch",
        "4",
        "--pictures",
        "3",
        "--optimizer",
        lodo,
        "--optimizer",
        "sgd",
    )
    printed = run("draw_digits.py", "-o", str(tmp_path / "digits.svg"), *small)
    lines = printed.splitlines()
    assert [line.partition(": loss")[0] for line in lines] == [lodo, "sgd"]
    losses = [float(value) for line in lines for value in line.partition(": loss ")[2].split()]
    assert len(losses) == 4
    assert losses[0] == losses[2]  # the same weights and pixels
    assert all(2 < value < 10 for value in losses)  # log 256 is 5.5
    assert (tmp_path / "digits.svg").read_text().count("<image") == 3


def test_lodo_measures_what_its_paper_claims(run):
    printed = run("lodo.py", "error", "--steps", "100")
    rows = [line.split() for line in printed.splitlines() if re.match(r"\s+\d+ ", line)]
    assert [row[0] for row in rows] == ["0", "20", "40", "60", "80", "100"]
    assert float(rows[0][2]) == 0.962
    assert float(rows[-1][2]) < 0.9
    assert all(
        abs(1 - 0.27 * value - float(left)) < 0.003 for value, left in zip((1, 0.25, 0.1), rows[0][3:], strict=False)
    )
    assert "Newton's method: 7.41" in printed


@pytest.mark.parametrize(("part", "steps"), [("frozen", "20"), ("momentum", "5"), ("ablations", "5")])
def test_parts_of_lodo_end(run, part, steps):
    printed = run("lodo.py", part, "--steps", steps)
    assert len(printed.splitlines()) > 4
    assert "nan" not in printed


def test_rosenbrock_path_is_drawn(run, tmp_path):
    printed = run("rosenbrock_path.py", "-o", str(tmp_path / "path.svg"))
    lodo, adam, averaged, summed = numbers(r"180 to 200 (\S+),", printed)
    assert abs(lodo - 1.05e-3) < 1e-4
    assert abs(adam - 5.3e-5) < 1e-5
    assert abs(averaged - 0.01397) < 1e-3  # as the paper's momentum
    assert summed < 2e-4
    assert "<svg" in (tmp_path / "path.svg").read_text()


def test_regions_on_quadratics_take_the_steps_of_closed_forms(run, tmp_path):
    printed = run("ellipsoids.py", "ways", "-o", str(tmp_path / "ways.svg"))
    steps = [int(count) for count in re.findall(r" (\d+) steps", printed)]
    descent, adagrad = steps[0::2][:2], steps[1::2][:2]
    for count, highest in zip(descent, (1.5, 100.0), strict=True):
        assert count == min(until_small(rate, highest) for rate in np.geomspace(0.005, 5, 61))
    assert adagrad == [4, 4]
    assert steps[4:] == [149, 196, 5]  # rotated; the first two are torch's own
    assert "<svg" in (tmp_path / "ways.svg").read_text()


def until_small(rate: float, highest: float) -> float:
    """Steps of gradient descent on diag(1, highest) from (-2, 1.5) to 1e-6 of the loss."""
    t = np.arange(401)
    with np.errstate(over="ignore"):
        loss = 4 * (1 - rate) ** (2 * t) + highest * 2.25 * (1 - rate * highest) ** (2.0 * t)
    return float(np.argmax(loss <= 1e-6 * loss[0])) or np.inf


def test_reconstructions_are_drawn(run, tmp_path):
    printed = run("reconstructions.py", "-o", str(tmp_path / "images.svg"), "--budget", "30")
    constant, *losses = numbers(r"loss ([\d.]+)", printed)
    mean = load_digits().data.mean(0) / 16
    inside = mean[(mean > 0) & (mean < 1)]
    entropy = -(inside * np.log(inside) + (1 - inside) * np.log(1 - inside)).sum() / 64
    assert constant == pytest.approx(entropy, abs=1e-4)
    assert len(losses) == 6
    assert all(constant < loss < 0.75 for loss in losses)  # 30 steps learn no more than biases
    assert "<svg" in (tmp_path / "images.svg").read_text()


def test_blocks_of_attention_grow_with_the_powers_of_the_paper(run):
    rows = re.findall(r"power ([\d.]+), residual part: (\S+)", run("attention_scale.py"))
    parts = [[float(number) if number != "none" else None for number in row] for row in rows]
    softmax, linear = parts[:3], parts[3:]
    assert [first for first, _ in softmax] == pytest.approx([6, 6, 2], abs=0.01)
    assert [first for first, _ in linear] == pytest.approx([6, 6, 6], abs=0.01)
    assert [second for _, second in softmax[:2]] == pytest.approx([5, 5], abs=0.01)
    assert [second for _, second in (softmax[2], *linear)] == [None] * 4


def test_blocks_of_softmax_regression_on_digits_and_a_gpt_that_learns():
    structure = runpy.run_path(str(EXAMPLES / "block_structure.py"))
    model, data, loss = structure["softmax"](classes=3)
    found = hessdiag.blocks(hessdiag.Problem(model, data=[data], loss=loss), by="class")
    assert (found.frobenius_share, found.absolute_share) == (
        pytest.approx(2 / 3, rel=1e-9),
        pytest.approx(0.5, rel=1e-9),
    )
    model, (tokens, targets), _ = structure["gpt"](steps=60)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1788
    assert torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()) < np.log(16) / 2


def test_momentum_trains_at_the_edge_of_stability(run, tmp_path):
    printed = run("edge_of_stability.py", "--only", "momentum", "--every", "250", "-o", str(tmp_path / "edge.svg"))
    (ratio,) = numbers(r"ratio ([\d.]+) in the last quarter", printed)
    assert ratio == pytest.approx(1.013, abs=0.02)
    assert "at most 10 passes; edge" in printed
    assert "</svg>" in (tmp_path / "edge.svg").read_text()


def test_a_monitored_training(run, tmp_path):
    log = tmp_path / "run.jsonl"
    said = run("monitor_training.py", "--steps", "1500", "--log", str(log), "--tensorboard", str(tmp_path / "curves"))
    header, *records = [json.loads(line) for line in log.read_text().splitlines()]
    assert header["schema"] == "hessdiag-run/1"
    steps = [record["step"] for record in records]
    looked = [record["step"] for record in records if "skipped" not in record]
    assert steps == sorted(set(steps))
    assert max(b - a for a, b in itertools.pairwise([0, *steps, 1500])) <= 50
    assert min(b - a for a, b in itertools.pairwise(looked)) >= 50
    assert all("failed" not in record for record in records)
    looks = [record for record in records if "lambda_max" in record["readings"]]
    assert len(looks) == said.count("of the threshold")
    assert records[-1]["share"] < 0.15  # 10 %, and what the first looks were guessed wrong by
    assert list((tmp_path / "curves").iterdir())
