"""The budget of `report`, kept: `python -m tests.benchmarks.report_budget [NAMES] [--budget SECONDS]`, three minutes.

A trained CNN on digits, an MLP of 128 layers and a small GPT: seconds of each question as announced and as taken, and of
all beside the budget, which may be passed by a fifth. Ends with 1 where it is. On a machine that does nothing else:
with --cpu by the processor's clock, for one that does.
"""

import argparse
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import hessdiag
from tests.benchmarks.lodo import told

OVER = 1.2  # of the budget
DIGITS = Path(__file__).parents[2] / "examples/digits.py"


def digits() -> hessdiag.Problem:
    """Trained here, as the example does."""
    argv, sys.argv = sys.argv, ["digits.py", "--out", tempfile.mkdtemp()]
    try:
        runpy.run_path(str(DIGITS), run_name="__main__")
        model, data = (str(Path(sys.argv[2]) / name) for name in ("cnn-trained.pt", "batch.npz"))
    finally:
        sys.argv = argv
    return hessdiag.load_problem(hessdiag.ProblemRequest(model, data=data, loss="ce", device="cpu"))


def builtin(spec: str) -> Callable[[], hessdiag.Problem]:
    """Of one of the built-in networks."""
    return lambda: hessdiag.load_problem(hessdiag.ProblemRequest(spec, device="cpu"))


MODELS: dict[str, Callable[[], hessdiag.Problem]] = {
    "digits": digits,
    "mlp128": builtin("builtin:mlp(depth=128, width=32)"),
    "gpt": builtin("builtin:gpt"),
    "gpt2m": builtin("builtin:gpt(layers=4, width=192, context=32)"),
}
SHOWN = ("digits", "mlp128", "gpt")


def kept(name: str, budget: float) -> bool:
    """One report, question by question."""
    report = hessdiag.full_report(MODELS[name](), budget=budget)
    for section in report.sections:
        announced, spent = section.announced_seconds, section.document["provenance"]["cost"]["products"]
        said = "      –" if announced is None else f"{announced:7.2f}"
        options = " ".join(section.argv[3:])
        print(
            f"    {section.command:13} {said} s announced, {section.seconds:7.2f} s taken, {spent:7} products  {options}"
        )
    for one in report.left_out:
        print(f"    {one.command:13} left out: {one.why}")
    return told(f"{name}: seconds of a budget of {budget:g} s", report.seconds, OVER * budget)


def main() -> int:
    """All that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], default=[])
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("--cpu", action="store_true", help="by the processor's clock, on a machine that others use")
    asked = parser.parse_args()
    torch.set_num_threads(1 if asked.cpu else torch.get_num_threads())
    if asked.cpu:
        time.perf_counter = time.process_time
    met = [kept(name, asked.budget) for name in asked.names or SHOWN]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
