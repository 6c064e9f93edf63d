"""The race: each optimizer on each network, learning rates searched on the first."""

import time
from dataclasses import dataclass, field, replace

from hessdiag.numbers import counted
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.foretold.notes import run_notes
from hessdiag.questions.escape.foretold.predict import predicted
from hessdiag.questions.escape.plan import Plan
from hessdiag.questions.escape.result import Run, Spent
from hessdiag.questions.escape.runs.counting import total
from hessdiag.questions.escape.runs.run import Rules, run
from hessdiag.questions.escape.search import winner
from hessdiag.questions.escape.start import Start


@dataclass
class Race:
    """What was run so far.

    Attributes:
        plan: Who runs.
        rules: Of all runs.
        progress: Told how far it is.
        runs: Finished ones, and one that was stopped.
        chosen: Each entrant with the learning rate that was found.
        search: What that cost, beside the first run.
        late: Runs for which there was no time.
        interrupted: Whether somebody interrupted it.
    """

    plan: Plan
    rules: Rules
    progress: Progress
    runs: list[Run] = field(default_factory=list)
    chosen: dict[str, Entrant] = field(default_factory=dict)
    search: dict[str, Spent] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    interrupted: bool = False
    _done: int = 0

    def on(self, start: Start, number: int) -> None:
        """Let all run that do so on network or order `number`."""
        if number == 0:
            self._announce()
        for entrant in self.plan.entrants:
            if self.interrupted:
                return
            if number >= self.plan.seeds[entrant.name]:
                continue
            if time.monotonic() > self.rules.deadline:
                self.late.append(f"{entrant.name}, run {number + 1}: the time that was granted was over before it")
                continue
            if entrant.name in self.chosen or not entrant.rates:
                found = self._run(start, self.chosen.setdefault(entrant.name, entrant), number)
            else:
                found = self._searched(start, entrant, number)
            self.runs.append(_explained(found, start, entrant))

    def _announce(self) -> None:
        """Say what it may cost before it is paid."""
        runs, each = counted(self.plan.runs, "run"), counted(self.rules.budget, "backpropagation")
        left = max(self.rules.deadline - time.monotonic(), 0.0)
        cost = f"cost: {runs} of up to {each}, searches for learning rates included; stopped after {left:.0f} s"
        self.progress(0, self.plan.runs * self.rules.budget, cost)

    def _run(self, start: Start, entrant: Entrant, number: int, most: int | None = None) -> Run:
        rules = self.rules if most is None else replace(self.rules, budget=most)
        what = f"{entrant.recipe.name if entrant.rates else entrant.name}, run {number + 1}"
        planned = self.plan.runs * self.rules.budget

        def tell(backprops: int) -> None:
            self.progress(min(self._done + backprops, planned), planned, what)

        tell(0)
        found, self.interrupted = run(start, entrant, rules, number, tell)
        self._done = min(self._done + self.rules.budget, planned)
        return found

    def _searched(self, start: Start, entrant: Entrant, number: int) -> Run:
        """Try all learning rates, and give the best one's run.

        Once one is out, the others may take no longer than that.
        """
        tried: list[tuple[Entrant, Run, bool]] = []
        most = self.rules.budget
        for rate in entrant.rates:
            if tried and time.monotonic() > self.rules.deadline:
                break
            one, capped = entrant.at(rate), most < self.rules.budget
            tried.append((one, self._run(start, one, number, most), capped))
            if self.interrupted:
                break
            if tried[-1][1].backprops is not None and self.rules.steps is None:
                most = min(most, tried[-1][1].backprops)
        best = winner([found for _, found, _ in tried])
        chosen, finished, capped = tried[best]
        self.chosen[entrant.name] = chosen
        others = [other.spent for _, other, _ in tried if other is not finished]
        if capped and not self.interrupted:  # it was the best of those that were cut short: in full, once more
            others.append(finished.spent)
            finished = self._run(start, chosen, number)
        self.search[entrant.name] = total(others)
        return finished


def _explained(found: Run, start: Start, entrant: Entrant) -> Run:
    """A run beside what was predicted of it, and why it ended as it did."""
    foretold = predicted(
        start.plateau, entrant.title, found.settings, model=start.problem.model, threshold=start.threshold
    )
    found = replace(found, predicted=foretold)
    return replace(found, notes=(*run_notes(found, start.plateau), *found.notes))
