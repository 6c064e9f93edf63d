"""CONTRIBUTING, "Add a diagnostic", done as it says in a copy of the package: a folder, a line, and nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.grown import ROOT, grown, section

SECTION = section("Add a diagnostic")
REGISTRY = "hessdiag/questions/registry.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package, in which the steps were taken."""
    files = re.findall(r'```python title="(\S+)"\n(.*?)```', SECTION, re.DOTALL)
    assert {Path(name).parent for name, _ in files} == {Path("hessdiag/questions/gradient")}
    return grown(tmp_path_factory.mktemp("tree"), SECTION, files, REGISTRY, "QUESTIONS")


def hessdiag(tree, *args):
    return subprocess.run(
        [sys.executable, "-m", "hessdiag", *args],
        capture_output=True, text=True, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, timeout=300,
    )  # fmt: skip


def test_help_lists_it(tree):
    assert "gradient How large is the gradient, layer by layer?" in " ".join(hessdiag(tree, "--help").stdout.split())
    shown = hessdiag(tree, "ls", "metrics", "gradient").stdout
    assert "layers.0.norm  that of the first layer's part" in shown


def test_it_measures_renders_and_gates(tree):
    done = hessdiag(tree, "gradient", "builtin:mlp(width=5,depth=3)", "-o", "r.json", "--fail-if", "norm > 0")
    assert done.returncode == 1, done.stderr
    assert "gate: norm = " in done.stderr
    assert "is the gradient's Euclidean norm" in done.stdout
    result = json.loads((tree / "r.json").read_text("utf-8"))["result"]
    assert sum(layer["norm"] ** 2 for layer in result["layers"]) == pytest.approx(result["norm"] ** 2)
    again = hessdiag(tree, "report", "r.json")
    assert again.stdout == done.stdout
    page = hessdiag(tree, "report", "r.json", "--format", "html")
    assert page.returncode == 0, page.stderr
    assert "<h1>How large is the gradient?</h1>" in page.stdout
    (tree / "broken.json").write_text((tree / "r.json").read_text("utf-8").replace('"norm":', '"nrm":'), "utf-8")
    assert "`result.layers[0].norm` is missing" in hessdiag(tree, "report", "broken.json").stderr
    assert hessdiag(tree, "gradient", "builtin:mlp(width=5,depth=3)", "--baseline", "r.json").returncode == 0
    assert "norm may be meant" in hessdiag(tree, "gradient", "builtin:mlp", "--fail-if", "nrm > 0").stderr


CODE = """
import hessdiag, torch
torch.manual_seed(0)
model = torch.nn.Linear(3, 1, bias=False).double()
x, y = torch.randn(5, 3).double(), torch.randn(5, 1).double()
found = hessdiag.gradient(hessdiag.Problem(model, data=[(x, y)], loss="mse"))
assert isinstance(found, hessdiag.Gradient)
expected = 2 / 5 * (x.T @ (model(x) - y)).norm()
print(abs(found.norm / float(expected.detach()) - 1) < 1e-12, found.layers == (hessdiag.results.LayerGradient(name=found.problem.layers[0].name, norm=found.norm),))
"""


def test_python_has_it(tree):
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split() == ["True", "True"]


def test_it_stays_out_of_the_package_without_its_line():
    assert '"gradient"' not in (ROOT / REGISTRY).read_text("utf-8")
