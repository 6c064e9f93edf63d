"""Every command on a GPU that is not there: the numbers of the CPU, no mixed devices, and launches within a table."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hessdiag
from hessdiag.curvature import registry as operators
from hessdiag.optimizers.registry import OPTIMIZERS
from hessdiag.questions import registry
from hessdiag.shards.layout import Layout
from tests import gpu_check, gpu_pieces, gpu_time
from tests.device import guard, table
from tests.device.lines import LINES, PARTS

ROOT = Path(__file__).parents[2]
COUNTS = ("launches", "waits", "uploads")


@pytest.fixture(scope="module")
def run():
    """What groups of runs print."""
    if reason := guard.missing():
        if os.environ.get("CI"):
            pytest.fail(f"in CI this has to run: it {reason}")
        pytest.skip(reason)
    try:
        guard.built()
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the guard does not fit this torch: {error}")
    return table.printed


def _beyond(found, limits):
    """What costs more than it may."""
    spent = {name: tuple(one["counts"].get(what, 0) for what in COUNTS) for name, one in found.items()}
    return {
        name: f"{numbers} launches, waits and uploads, at most {limits[name][:3]}"
        for name, numbers in spent.items()
        if any(number > limit for number, limit in zip(numbers, limits[name][:3], strict=True))
    }


def test_everything(run):
    """Of one process, whose imports take as long as half of all this."""
    found = run(*LINES, "parts", "loading", "pieces", "rehearsal")
    for group, lines in LINES.items():
        _check_commands(table.by_name(found[group]), lines)
    parts = table.by_name(found["parts"])
    assert parts.keys() == PARTS.keys()
    assert not _beyond(parts, PARTS)
    _check_loading(table.by_name(found["loading"]))
    _check_pieces(table.by_name(found["pieces"]))
    _check_rehearsal(found["rehearsal"])


def _check_commands(found, limits):
    assert found.keys() == limits.keys()
    assert not [one for one in found.values() if one["wrong"] or "failed alike" in one]
    assert not _beyond(found, limits)


def test_every_question_and_every_matrix_is_among_them():
    lines = [line for group in LINES.values() for line in group]
    others = {"chain", "compare", "report"}  # which take no device, or ask the others
    assert {line.split()[0] for line in lines} == {*registry.NAMES} - others
    named = {found for line in lines for found in re.findall(r"--operator (\w+)", line)}
    assert named | {"hessian"} == {*operators.NAMES}
    taken = {line.split()[0] for line in lines if "--metric" in line}
    assert taken == {"eigs", "spectrum", "bounds", "diag-share"}
    assert {f"step of {name}" for name in OPTIMIZERS} <= PARTS.keys()


def test_the_table_of_the_documentation_is_within_them():
    text = (ROOT / "docs/performance.md").read_text()
    _, _, rest = text.partition(f"{table.HEAD}\n")
    assert rest, "print it by `python -m tests.device.table`"
    rows = [line.strip("| ").split(" | ") for line in rest.partition("\n\n")[0].splitlines()]
    quoted = {name: tuple(float(number.replace(",", "")) for number in numbers) for name, _, *numbers in rows}
    assert quoted.keys() == PARTS.keys()
    over = {
        name: (numbers, PARTS[name][:3])
        for name, numbers in quoted.items()
        if any(number > limit for number, limit in zip(numbers, PARTS[name][:3], strict=True))
    }
    assert not over


def _check_loading(found):
    """Where problems go, and what is refused."""
    for spec, device in (("mlp", "cpu"), ("weighted", "cpu"), ("wide", "cuda:0")):
        one = found[f"tests/gpu_models.py:{spec}"]
        assert (one["model"], one["data"], len(one["notes"])) == (device, [device], int(device == "cpu"))
    for spec, said in (
        ("labels_out_of_range", "labels run from 97 to 99"),
        ("tokens_out_of_range", "the table embedding.weight has 50 rows"),
    ):
        one = found[spec]
        assert (one["code"], one["launched"]) == (3, [])  # nothing met it that a real one cannot survive
        assert said in one["said"]
    assert found["Ritz pairs"]["apart"] < 1e-12
    assert "ids run from 99,999 to" in found["tokens out of range, in pieces"]["said"]
    report = found["report"]
    assert report["code"] == 0
    assert report["document"]["problem"]["device"] == "cuda:0"
    said = report["document"]["provenance"]
    assert said["device"] == "cuda:0 (pretended)"
    assert said["arithmetic"]["float32"] == "IEEE"
    assert {"tf32 in matrix products on a GPU", "cudnn.benchmark"} <= {*said["arithmetic"]["set_aside"]}
    assert {"driver", "cuda", "cudnn", "cudnn_deterministic", "peak_reserved_bytes"} <= said["gpu"].keys()
    assert report["flags"] == ["high", True]  # the user's again
    assert "cuda:0 (pretended)" in report["page"]


def _check_pieces(found):
    assert found.keys() == {"lenet", "gpt"}
    for one in found.values():
        assert one["apart"] < 1e-13
        assert one["kept"] > 0
    assert "cross-entropy of the head in chunks" in found["gpt"]["engine"]


def _tables(lines):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import gpu_table
    finally:
        sys.path.pop(0)
    return list(gpu_table.tables(lines))


def _check_rehearsal(found):
    """The check runs on the pretended GPU, and its lines make the tables."""
    assert not [line for line in found if line.get("wrong") or line.get("failed")]
    names = {part: {line["name"] for line in found if line["part"] == part} for part in KNOWN}
    assert all(names.values())
    assert names["sharded"] == {
        f"{model}, {dtype}, in pieces" for model in ("MLP", "LeNet") for dtype in ("float64", "float32")
    }
    cases = {case.name for case in gpu_time.CASES}
    assert names["where"] == cases
    assert cases < names["races"]
    rows = _tables(found)
    assert rows[0].startswith("A rehearsal")
    assert {case for case in cases if any(row.startswith(f"| {case} |") for row in rows)} == cases
    assert "\n0 findings want mending." in rows


def test_cases_stand_beside_their_limits():
    line = {"part": "races", "name": "a case", "seconds": 0.5, "limit": 0.25, "times": 2.0, "goal": 4.0}
    wrong = {"part": "break", "name": "b", "wrong": True, "failed": "text"}
    assert _tables([line, wrong])[1:] == [
        "| a case | 0.5 | 0.25 | 2 | 4 |",
        "\n1 findings want mending.",
        "- break: b text",
    ]


def test_times_are_held_against_limits():
    rounds = list(gpu_time.races("cpu", True, lambda run: 0.3))
    share = next(line for line in rounds if line["name"].endswith("batch 128") and "share" in line["name"])
    assert (share["limit"], round(share["times"], 6), share["goal"]) == (0.36, 0.833333, 2.0)
    product = next(line for line in rounds if line["name"] == "MLP, product with 32")
    assert product["gradients"] == 1 / 32


KNOWN = {*gpu_check.PARTS, *gpu_check.TIMED}


def test_calls_name_parts_that_there_are():
    assert {part for call in gpu_check.CALLS.values() for part in call} == KNOWN


PIECES = {f"{model}, {dtype}, " for model in ("MLP", "LeNet") for dtype in ("float64", "float32")}


def test_pieces_are_rehearsed_by_two_ranks():
    found = list(gpu_check.lines("sharded", "cpu", small=True))
    both = {f"{name}{how}" for name in PIECES for how in ("in pieces", "by 2 ranks and gloo")}
    assert {line["name"] for line in found} == both
    for line in found:
        assert line["apart"] < (1e-9 if "float64" in line["name"] else 1e-4)
        assert not line["wrong"]
        assert min(line[kind]["seconds"] for kind in ("whole", "pieces")) > 0
    assert max(line["apart"] for line in found) > 0  # two runs of the same code would not differ


def test_pieces_that_are_refused_or_differ_are_wrong(monkeypatch):
    monkeypatch.setattr(gpu_pieces, "RANKS", 0)
    monkeypatch.setattr(hessdiag, "sharded", lambda problem: problem)
    refused = list(gpu_check.lines("sharded", "cpu", small=True))
    assert [line["wrong"] for line in refused] == [True] * 4
    assert all("has no attribute 'layout'" in line["failed"] for line in refused)
    monkeypatch.undo()
    whole = Layout.whole
    monkeypatch.setattr(gpu_pieces, "RANKS", 0)
    for wrong in (lambda own: own * (1 + 2e-4), lambda own: own * math.nan):
        monkeypatch.setattr(Layout, "whole", lambda self, local, wrong=wrong: wrong(whole(self, local)))
        assert [line["wrong"] for line in gpu_check.lines("sharded", "cpu", small=True)] == [True] * 4


def test_a_rank_that_fails_is_wrong(monkeypatch):
    def lost(*given):
        raise SystemExit(3)

    monkeypatch.setattr(gpu_pieces, "compared", lost)
    found = list(gpu_pieces.by_ranks("sharded", "cpu", True))
    assert [line["failed"] for line in found] == ["exit code 3, see what it printed"] * 2
    assert all(line["wrong"] for line in found)


# What a stand-in must do to be worth anything: refuse as a GPU refuses, and count.
SELF = """
from tests.device import guard
guard.load()
import copy
import torch
from tests.device.pretended_gpu import GPU, pretended

def refused(run):
    try:
        run()
    except RuntimeError as error:
        return "same device" in str(error) or "generator" in str(error)
    return False

with pretended() as gpu:
    x = torch.ones(3).to(GPU)
    assert x.tolist() == [1.0] * 3
    here = torch.zeros(3, dtype=torch.int64)
    assert (x + 1.0).device == GPU and str(torch.tensor([1.0], device="cuda").device) == "cuda:0"
    assert refused(lambda: x + torch.ones(3)) and not refused(lambda: x + torch.ones(()))
    assert refused(lambda: torch.ones(3)[here.to(GPU)]) and not refused(lambda: x[here])
    assert refused(lambda: torch.randn(3, device=GPU, generator=torch.Generator()))
    assert refused(lambda: x.copy_(torch.ones(3)) + torch.ones(3))
    gpu.counts.clear()
    y = (x.view(3, 1) * 2.0).sum()
    assert gpu.counts == {"launches": 2}, gpu.counts
    float(y), y.cpu(), x[x > 0]
    assert gpu.counts["waits"] == 3, gpu.counts
    torch.ones(3).to(GPU), x[here]
    assert gpu.counts["uploads"] == 2, gpu.counts
    w = torch.nn.Parameter(x)
    (w * w).sum().backward()
    assert w.grad.device == GPU and w.grad.cpu().tolist() == [2.0] * 3
    layer = copy.deepcopy(torch.nn.Linear(2, 1).to(GPU))
    twin = copy.deepcopy(layer)
    assert isinstance(twin.weight, torch.nn.Parameter) and twin.weight.shape == (1, 2)
    with torch.no_grad():
        twin.weight.add_(1.0)
    assert layer.weight.tolist() != twin.weight.tolist()
__import__("os")._exit(0)  # autograd's threads for the device may abort the process at its end
"""


def test_the_stand_in_itself(run):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SELF], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
