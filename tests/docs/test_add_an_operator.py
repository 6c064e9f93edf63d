"""CONTRIBUTING, "Add an operator", done as it says in a copy of the package: a module, a line, and nothing else."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.docs.grown import ROOT, grown, section

SECTION = section("Add an operator")
REGISTRY = "hessdiag/curvature/registry.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package, in which the steps were taken."""
    (module,) = re.findall(r"^1\. `(\S+)`", SECTION, re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    return grown(tmp_path_factory.mktemp("tree"), SECTION, [(module, code)], REGISTRY, "OPERATORS")


def python(tree, code, *args):
    code = f"import hessdiag\nassert hessdiag.__file__.startswith({str(tree)!r}), hessdiag.__file__\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True, text=True, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, timeout=300,
    )  # fmt: skip


RUN = """
import sys
from hessdiag.cli.main import run
code = run(sys.argv[1:])
assert "-o" in sys.argv or "torch" not in sys.modules  # which a measurement alone needs
sys.exit(code)
"""


def test_the_choice_of_the_command_line_has_it_without_torch(tree):
    done = python(tree, RUN, "spectrum", "--help")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "the model's Fisher matrix or the residual. One of hessian, ggn, fisher, residual." in shown


ASKED = """
import json, torch
from hessdiag.errors import SpecError

def refusal(ask, *args, **options):
    try:
        ask(*args, **options)
    except SpecError as error:
        return str(error)

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
problem = hessdiag.Problem(model, data=[(torch.randn(9, 4).double(), torch.randint(3, (9,)))], loss="ce")
found = hessdiag.spectrum(problem, operator="residual")
beside = hessdiag.spectrum(hessdiag.ResidualOperator(problem))
eye = torch.eye(problem.n_parameters, dtype=torch.float64)
expected = torch.linalg.eigvalsh(hessdiag.hessian(problem) - hessdiag.GaussNewtonOperator(problem) @ eye)
print(json.dumps({
    "found": found.eigenvalues, "beside": beside.eigenvalues, "names": [found.operator, beside.operator],
    "expected": expected.tolist(), "status": found.status, "says": [finding.says for finding in found.findings],
    "unknown": refusal(hessdiag.spectrum, problem, operator="nonsense"),
    "of the Hessian alone": refusal(hessdiag.eigs, hessdiag.ResidualOperator(problem)),
}))
"""


def test_python_is_answered_about_it_by_name_and_by_operator(tree):
    done = python(tree, ASKED)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["names"] == ["residual", "residual"]
    assert told["status"] == "ok"
    assert told["found"] == pytest.approx(told["expected"], abs=1e-10)
    assert told["beside"] == told["found"]
    assert told["found"][0] < -0.01
    assert any(says.startswith("The residual has negative eigenvalues: ") for says in told["says"])
    assert "not one of hessian, ggn, fisher, residual" in told["unknown"]
    assert "not ResidualOperator" in told["of the Hessian alone"]


def test_a_command_measures_it_and_its_document_is_read_back(tree):
    few = ("--probes", "3", "--steps", "15", "--no-progress", "--allow-inexact")
    done = python(
        tree, RUN, "spectrum", "builtin:mlp(width=24,depth=3)", "--operator", "residual", *few, "-o", "r.json"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tree / "r.json").read_text("utf-8"))["result"]
    assert (result["operator"], result["method"]) == ("residual", "slq")
    shown = python(tree, RUN, "report", "r.json")
    assert shown.returncode == 0, shown.stderr
    assert "How are the residual's eigenvalues distributed?" in shown.stdout


def test_it_stays_out_of_the_package_without_its_line():
    assert "residual" not in (ROOT / REGISTRY).read_text("utf-8")
