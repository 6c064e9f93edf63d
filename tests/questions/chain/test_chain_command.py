import json
import math
import subprocess
import sys

import pytest

from hessdiag import chain
from hessdiag.questions.common.result import Arithmetic


def test_the_document_holds_what_scripts_rely_on(hessdiag):
    outcome = hessdiag("chain", "--length", 10, "--scale", 1.7320508, "--json", "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    doc = json.loads(outcome.out)
    assert (doc["command"], doc["status"]) == ("chain", "ok")
    result = doc["result"]
    assert {"length", "distribution", "scale", "seeds"} <= set(result)
    for size in (result, *(result[name] for name in ("gradient", "hessian_diagonal", "hessian_offdiagonal"))):
        for name in ("median_abs", "mean_abs", "rms", "probability_above_mean"):
            assert {name, f"{name}_stderr", f"theory_{name}"} <= set(size)
    assert f"{result['theory_median_abs']:.6g}" == "0.0153652"
    critical = result["critical_scale"]
    assert abs(critical["rms"] - math.sqrt(3)) < 1e-10
    assert abs(critical["mean_abs"] - 2) < 1e-10
    assert abs(critical["median"] - math.e) < 1e-10


def test_options_reach_the_measurement(hessdiag):
    first, again, other = (
        json.loads(hessdiag("chain", "--seeds", 20, "--seed", seed, "--distribution", "normal", "--json").out)["result"]
        for seed in (1, 1, 2)
    )
    assert (first["seeds"], first["distribution"], first["scale"]) == (20, "normal", 1.0)
    assert first["median_abs"] == again["median_abs"] != other["median_abs"]
    assert "20 chains of 10 normal weights" in hessdiag("chain", "--seeds", 20, "--distribution", "normal").err


def test_bad_input_is_one_line(hessdiag):
    for args in (("--length", 0), ("--scale", 0), ("--scale", "nan"), ("--distribution", "cauchy"), ("--seeds", 1)):
        outcome = hessdiag("chain", *args)
        assert outcome.code == 2
        assert outcome.out == ""
        assert args[0] in outcome.err
        assert len(outcome.err.splitlines()) <= 2


def test_gates_and_saved_pages(hessdiag, tmp_path):
    quick = ("chain", "--seeds", 100)
    assert hessdiag(*quick, "--fail-if", "theory_median_abs < 0.01", "-o", "r.json").code == 0
    assert hessdiag(*quick, "--fail-if", "critical_scale.median_at_length > 2.6").code == 1
    assert hessdiag(*quick, "--baseline", "r.json").code == 0
    assert hessdiag(*quick, "--length", 20, "--baseline", "r.json").code == 1
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert (tmp_path / "r.html").read_text("utf-8").count("<img") == 3


@pytest.mark.parametrize(
    "code",
    [
        "from hessdiag import chain; print(chain(seeds=10).provenance.versions)",
        "from hessdiag.cli.main import run; run(['chain', '--seeds', '10', '--json'])",
    ],
    ids=["in Python", "as a command"],
)
def test_measuring_imports_no_torch(code):
    code = f"import sys\n{code}\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "numpy" in done.stdout


def test_what_is_measured_says_how_it_came_to_be():
    """With or without torch: other questions may have loaded it."""
    made = chain(seeds=10).provenance
    assert made.started
    assert made.wall_seconds >= 0
    assert made.peak_memory_bytes > 0
    assert (made.device, made.arithmetic) == ("cpu", Arithmetic(float32="IEEE"))
    assert {"hessdiag", "numpy", "python"} <= made.versions.keys()
    alone = "import hessdiag; print(hessdiag.chain(seeds=10).provenance)"
    done = subprocess.run([sys.executable, "-c", alone], check=True, capture_output=True, text=True)
    assert "threads=None" in done.stdout
    assert "torch" not in done.stdout
