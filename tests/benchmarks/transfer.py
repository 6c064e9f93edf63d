"""Powers of the width at 64 to 1,024, standard against muP: `python -m tests.benchmarks.transfer`, a minute on two cores.

The reference of a three-layer ReLU network and five seeds: lambda_max goes as width^0.95 in the standard parametrization
and as width^0.97 in muP, but weighted by muP's learning rates as width^0. Asserts all three, and that the verdicts are
"no" and "yes"; prints powers and seconds.
"""

import time

import torch

from hessdiag.problem.load import ProblemRequest, Shared, load_problem
from hessdiag.questions.transfer.measure import transfer
from hessdiag.questions.transfer.result import Transfer

WIDTHS = (64, 256, 1024)
SPEC = "builtin:mlp(width={width}, depth=3, in_features=64, out_features=1, parametrization='{name}')"


def measured(name: str) -> Transfer:
    """One parametrization."""
    shared = Shared()

    def build(width: int, seed: int):
        spec = SPEC.format(width=width, name=name)
        return load_problem(ProblemRequest(spec, device="cpu", seed=seed, train_mode=True), shared)

    return transfer(build, widths=WIDTHS)


def main() -> None:
    """Measure, print and assert."""
    torch.set_num_threads(2)
    found = {}
    for name in ("standard", "mup"):
        began, cpu = time.perf_counter(), time.process_time()
        found[name] = measured(name)
        slopes = found[name].slopes
        print(
            f"{name:8}  lambda_max {slopes.lambda_max.slope:+.3f} ± {slopes.lambda_max.stderr:.3f}"
            f"  weighted {slopes.lambda_max_weighted.slope:+.3f} ± {slopes.lambda_max_weighted.stderr:.3f}"
            f"  transfers {found[name].transfers}"
            f"  {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of the processor"
        )
    standard, mup = found["standard"], found["mup"]
    assert abs(standard.slopes.lambda_max.slope - 0.95) < 0.1
    assert abs(mup.slopes.lambda_max.slope - 0.97) < 0.1
    assert abs(mup.slopes.lambda_max_weighted.slope) < 0.05
    assert (standard.transfers, mup.transfers) == (False, True)


if __name__ == "__main__":
    main()
