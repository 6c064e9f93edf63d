"""How often `check` is right: `python -m tests.benchmarks.causes`, in minutes; `--no-try` leaves the cures out.

Of each broken network of tests/questions/check/corpus: whether the first cause is a right one, whether one of the first
three is, whether the layer is, and whether the first cure helped. Then precision and recall by identifier: of those
that were named first, which were right; of the networks whose defect an identifier is most proper for, in how many a
right one was named first. Of each healthy network: what was found, if anything.
"""

import argparse
import time
import warnings
from collections import Counter
from dataclasses import dataclass

import torch

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.measure import check
from hessdiag.questions.check.result import BROKEN as BAD
from tests.questions.check.corpus.case import Case
from tests.questions.check.corpus.corpus import BROKEN, HEALTHY


@dataclass(frozen=True)
class Score:
    """What `check` said of one case.

    Attributes:
        case: Which.
        found: (identifier, layer, confidence) of each cause, in order.
        levels: Of its findings.
        helped: Whether the first cure did; `None` where none was tried.
        cure: Its name.
        seconds: Without the cure.
        error: Why there is no answer.
    """

    case: Case
    found: tuple[tuple[str, str | None, float], ...] = ()
    levels: tuple[str, ...] = ()
    helped: bool | None = None
    cure: str = ""
    seconds: float = 0.0
    error: str = ""

    @property
    def first(self) -> bool:
        """Whether the first cause is a right one."""
        return bool(self.found) and self.found[0][0] in self.case.causes

    @property
    def among_three(self) -> bool:
        """Whether one of the first three is."""
        return any(identifier in self.case.causes for identifier, _, _ in self.found[:3])

    @property
    def placed(self) -> bool | None:
        """Whether the first cause names the layer that is at fault; `None` where it is no single one."""
        return self.found[0][1] in self.case.layers if self.first and self.case.layers else None


def scored(case: Case, seed: int, attempt: bool) -> Score:
    """Ask `check` about a case."""
    model, batches, loss = case.make(seed)
    asked = {"optimizer": case.optimizer, "lr": case.lr}
    try:
        problem = Problem(model, data=batches, loss=loss)
        begun = time.perf_counter()
        result = check(problem, **asked)
        seconds = time.perf_counter() - begun
        trial = check(problem, **asked, attempt=True).trial if attempt and result.causes else None
    except Exception as error:  # of a benchmark that is to go on with the next case
        return Score(case, error=f"{type(error).__name__}: {error}")
    return Score(
        case,
        tuple((cause.id, cause.layer, cause.confidence) for cause in result.causes),
        tuple(finding.level for finding in result.findings),
        None if trial is None else trial.helped,
        "" if trial is None else trial.cure,
        seconds,
    )


def broken_line(score: Score) -> str:
    """One broken case: marks of first, among three, layer and cure, then what was said."""

    def mark(fact):
        return {None: " ", True: "+", False: "-"}[fact]

    marks = " ".join(map(mark, (score.first, score.among_three, score.placed, score.helped)))
    found = "  ".join(f"{name}@{layer or '*'} {confidence:.2f}" for name, layer, confidence in score.found[:3])
    wanted = "" if score.first else f"  [right: {', '.join(sorted(score.case.causes))}]"
    return f"{marks}  {score.case.name:34} {score.seconds:5.2f}s  {score.error or found or 'nothing'}{wanted}  {score.cure}"


def healthy_line(score: Score) -> str:
    """One healthy case of which something was said."""
    found = "  ".join(f"{name}@{layer or '*'} {confidence:.2f}" for name, layer, confidence in score.found)
    return f"{worst(score):5}  {score.case.state:12} {score.case.name:34} {score.seconds:5.2f}s  {score.error or found}"


def worst(score: Score) -> str:
    """The worst level of what was found."""
    return next((level for level in ("bad", "warn") if level in score.levels), "error" if score.error else "-")


def by_identifier(scores: list[Score]) -> list[str]:
    """Precision and recall of each identifier, of what was named first with a confidence of "bad", healthy ones included."""
    named, right, due, met = Counter(), Counter(), Counter(), Counter()
    for score in scores:
        if score.case.is_broken:
            due[score.case.causes[0]] += 1
            met[score.case.causes[0]] += score.first
        if score.found and (score.case.is_broken or score.found[0][2] >= BAD):
            named[score.found[0][0]] += 1
            right[score.found[0][0]] += score.first

    def share(part, whole):
        return f"{part / whole:.2f} ({part}/{whole})" if whole else "-"

    return [
        f"{name:28} precision {share(right[name], named[name]):14} recall {share(met[name], due[name])}"
        for name in sorted({*named, *due})
    ]


def total(what: str, part: int, whole: int) -> str:
    """A share, in words and numbers."""
    return f"{what}: {part} of {whole} ({100 * part / max(whole, 1):.0f} %)"


def main() -> None:
    """Print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of cases; all without any")
    parser.add_argument("--no-try", action="store_true", help="no cures")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    def chosen(cases):
        return [case for case in cases.values() if not given.names or case.name in given.names]

    broken, healthy = [], []
    print(f"seed {given.seed}\nfirst, among three, layer, cure:")
    for case in chosen(BROKEN):
        broken.append(scored(case, given.seed, not given.no_try))
        print(broken_line(broken[-1]), flush=True)
    for case in chosen(HEALTHY):
        healthy.append(scored(case, given.seed, False))
        if healthy[-1].found or worst(healthy[-1]) != "-":
            print(healthy_line(healthy[-1]), flush=True)
    placed = [score.placed for score in broken if score.placed is not None]
    print(total("first cause right", sum(score.first for score in broken), len(broken)))
    print(total("among the first three", sum(score.among_three for score in broken), len(broken)))
    print(total("layer right where the cause is", sum(placed), len(placed)))
    if not given.no_try:
        print(total("first cure helped", sum(score.helped is True for score in broken), len(broken)))
    levels = Counter(map(worst, healthy))
    print(f"healthy: {len(healthy)}, bad {levels['bad']}, warn {levels['warn']}, no answer {levels['error']}")
    print("\n".join(by_identifier(broken + healthy)))


if __name__ == "__main__":
    main()
