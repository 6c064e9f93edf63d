import json
import math

import click
import pytest

from hessdiag import errors
from hessdiag.errors import ExitCode
from tests.fake_share import fake_share

MODEL = "builtin:lenet"


def test_the_codes_are_the_published_ones():
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0, "GATE": 1, "USAGE": 2, "FAILED": 3, "INEXACT": 4, "INTERRUPTED": 130, "TERMINATED": 143
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["-h"], 0),
        (["--version"], 0),
        (["ls"], 0),
        ([], 2),
        (["diag-shar"], 2),
        (["diag-share"], 2),
        (["diag-share", MODEL], 0),
        (["diag_share", MODEL, "--batch_size", "3"], 0),
        (["diag-share", MODEL, "--no-such-option"], 2),
        (["diag-share", MODEL, "--rows", "0"], 2),
        (["diag-share", MODEL, "--rows", "many"], 2),
        (["diag-share", MODEL, "--rows", "1.5"], 2),
        (["diag-share", MODEL, "--dtype", "int8"], 2),
        (["diag-share", MODEL, "--fail-if", "diag_share"], 2),
        (["diag-share", MODEL, "--fail-if", "no_such_number<1"], 2),
        (["diag-share", MODEL, "--fail-if", "diag_share<1"], 1),
        (["diag-share", MODEL, "--fail-if", "diag_share>1"], 0),
        (["diag-share", MODEL, "--fail-if", "diag_share>1", "--fail-if", "rows>1"], 1),
        (["diag-share", MODEL, "--baseline", "missing.json"], 3),
        (["diag-share", MODEL, "--json", "--format", "html"], 2),
        (["diag-share", MODEL, "-o", "x.pdf"], 2),
        (["diag-share", MODEL, "-o", "no/such/folder/x.html"], 2),
        (["diag-share", MODEL, "-o", "."], 2),
        (["vanishing", "--width", "wide"], 2),
        (["vanishing", "--init", "zeros"], 2),
        (["forward", "--init", "zeros"], 2),
        (["forward", "--depth", "2", "--width", "3", "--init", "he-normal", "--init", "lecun", "--seeds", "9"], 0),
        (["report", "missing.json"], 3),
        (["report", "train.py:missing"], 3),
        (["report", "missing.json", "--data", "batch.npz"], 2),
        (["report", MODEL, "--budget", "soon"], 2),
        (["report", MODEL, "--fail-if", "eigs.biggest > 1"], 2),
        (["ls", "nothing"], 2),
        (["completion", "tcsh"], 2),
    ],
)
def test_exit_codes(hessdiag, fake, args, code):
    outcome = hessdiag(*args)
    assert outcome.code == code
    if args and code:
        assert outcome.out == "" or code == ExitCode.GATE or "no_such_number<1" in args
        assert outcome.err.splitlines()[-1].startswith(("error: ", "  try: ", "gate: "))
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.SpecError("No such.", "hessdiag ls"), 2, "error: No such.\n  try: hessdiag ls\n"),
        (errors.LoadError("Cannot load."), 3, "error: Cannot load.\n"),
        (errors.UntrustedFileError("Would run os.system."), 3, "error: Would run os.system.\n"),
        (errors.ComputeError("The loss is nan."), 3, "error: The loss is nan.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (
            ZeroDivisionError("one\ntwo"),
            3,
            "error: internal error: ZeroDivisionError: one (run with --traceback to see where)\n",
        ),
        (SystemExit(0), 3, "sys.exit(0)"),
        (SystemExit(1), 3, "__main__"),
    ],
)
def test_every_error_is_a_line_and_a_number(hessdiag, fake, error, code, said):
    fake.raises = error
    outcome = hessdiag("diag-share", MODEL)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("args", [["--traceback", "diag-share", MODEL], ["diag-share", MODEL, "--traceback"]])
def test_a_traceback_is_shown_on_request(hessdiag, fake, args):
    fake.raises = ZeroDivisionError("deep inside")
    outcome = hessdiag(*args)
    assert outcome.code == 3
    assert "Traceback" in outcome.err
    assert "in measure" in outcome.err


@pytest.mark.parametrize(
    ("status", "args", "code"),
    [
        ("inexact", [], 4),
        ("inexact", ["--allow-inexact"], 0),
        ("inexact", ["--fail-if", "diag_share<1"], 4),
        ("inexact", ["--allow-inexact", "--fail-if", "diag_share<1"], 1),
        ("ok", ["--fail-if", "diag_share<1"], 1),
        ("ok", ["--fail-if", "diag_share<1", "--exit-zero"], 0),
        ("inexact", ["--fail-if", "diag_share<1", "--exit-zero"], 4),
        ("interrupted", [], 130),
        ("interrupted", ["--fail-if", "diag_share<1"], 130),
    ],
)
def test_status_decides_before_gates_do(hessdiag, fake, status, args, code):
    fake.result = fake_share(status)
    outcome = hessdiag("diag-share", MODEL, "--json", *args)
    assert outcome.code == code
    assert json.loads(outcome.out)["status"] == status
    assert ("gate: diag_share" in outcome.err) == (any("diag_share" in one for one in args) and status != "interrupted")


def test_nan_violates_a_gate_from_either_side(hessdiag, fake):
    fake.result = fake_share(diag_share=math.nan)
    for op in "<>":
        assert hessdiag("diag-share", MODEL, "--fail-if", f"diag_share{op}0").code == 1


def test_a_baseline_is_compared(hessdiag, fake):
    assert hessdiag("diag-share", MODEL, "-o", "before.json").code == 0
    assert hessdiag("diag-share", MODEL, "--baseline", "before.json").code == 0
    fake.result = fake_share(diag_share=1.2 * fake_share().diag_share)
    outcome = hessdiag("diag-share", MODEL, "--baseline", "before.json")
    assert outcome.code == 1
    assert "gate: diag_share went from 0.0716958" in outcome.err
    assert hessdiag("diag-share", MODEL, "--baseline", "before.json", "--max-change", "30%").code == 0


def test_a_near_command_is_named(hessdiag):
    assert "Did you mean vanishing?" in hessdiag("vanishin").err
