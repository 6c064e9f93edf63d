"""The race: each optimizer on each network, learning rates searched on the first."""

import time
from dataclasses import dataclass, field, replace

from hessdiag.numbers import counted
from hessdiag.questions.common.runs.progress import Progress
from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.foretold.notes import run_notes
from hessdiag.questions.escape.foretold.predict import predicted
from hessdiag.questions.escape.plan import SEARCH, Plan
from hessdiag.questions.escape.result import Prediction, Run, Spent
from hessdiag.questions.escape.runs.counting import total
from hessdiag.questions.escape.runs.run import Rules, run
from hessdiag.questions.escape.search import winner
from hessdiag.questions.escape.start import Start

FAR = 3  # budgets: where a law lets a learning rate out later than that, smaller ones are not tried


@dataclass
class Race:
    """What was run so far.

    Attributes:
        plan: Who runs.
        rules: Of all runs.
        progress: Told how far it is.
        runs: Finished ones, and one that was stopped.
        chosen: Each entrant with the learning rate that was found.
        tried: Learning rates, by entrant.
        search: What that cost, beside the first run.
        late: Runs for which there was no time.
        interrupted: Whether somebody interrupted it.
    """

    plan: Plan
    rules: Rules
    progress: Progress
    runs: list[Run] = field(default_factory=list)
    chosen: dict[str, Entrant] = field(default_factory=dict)
    tried: dict[str, tuple[float, ...]] = field(default_factory=dict)
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
            if self.runs and time.monotonic() > self.rules.deadline:  # one is made however late it is
                self.late.append(f"{entrant.name}, run {number + 1}: the time that was granted was over before it")
                continue
            if entrant.name in self.chosen or not entrant.rates:
                found = self._run(start, self.chosen.setdefault(entrant.name, entrant), number)
            else:
                found = self._searched(start, entrant, number)
            self.runs.append(_explained(found, start, entrant))

    def _announce(self) -> None:
        """Say what it may cost before it is paid."""
        runs = counted(sum(self.plan.seeds[one.name] for one in self.plan.entrants), "run")
        each, rates = counted(self.rules.budget, "backpropagation"), sum(len(one.rates) for one in self.plan.entrants)
        search = f", and a search over {counted(rates, 'learning rate')}" if rates else ""
        left = max(self.rules.deadline - time.monotonic(), 0.0)
        self.progress(0, self._planned, f"cost: {runs} of up to {each}{search}; stopped after {left:.0f} s")

    @property
    def _planned(self) -> int:
        """Backpropagations, at most."""
        return round(self.plan.runs * self.rules.budget)

    def _run(self, start: Start, entrant: Entrant, number: int, most: int | None = None) -> Run:
        rules = self.rules if most is None else replace(self.rules, budget=most, stability=False)
        what = f"{entrant.recipe.name if entrant.rates else entrant.name}, run {number + 1}"

        def tell(backprops: int) -> None:
            self.progress(min(self._done + backprops, self._planned), self._planned, what)

        tell(0)
        found, self.interrupted = run(start, entrant, rules, number, tell)
        self._done = min(self._done + rules.budget, self._planned)
        return found

    def _searched(self, start: Start, entrant: Entrant, number: int) -> Run:
        """Try all learning rates for a part of the budget, and give the best one's run in full.

        Once one is out, the others may take no longer than that. Where the largest stays in, and its law lets it out
        far beyond the budget, smaller ones are slower still.
        """
        tried: list[tuple[Entrant, Run]] = []
        most = max(int(SEARCH * self.rules.budget), 1)
        for rate in entrant.rates:
            if tried and time.monotonic() > self.rules.deadline:
                break
            one = entrant.at(rate)
            found = self._run(start, one, number, most)
            tried.append((one, found))
            if self.interrupted or (len(tried) == 1 and self._hopeless(start, one, found)):
                break
            if found.backprops is not None and self.rules.steps is None:
                most = min(most, found.backprops)
        best = winner([found for _, found in tried])
        chosen, finished = tried[best]
        self.chosen[entrant.name], self.tried[entrant.name] = chosen, entrant.rates[: len(tried)]
        spent = [found.spent for _, found in tried]
        if self.interrupted:
            spent.remove(finished.spent)
        else:
            finished = self._run(start, chosen, number)
        self.search[entrant.name] = total(spent)
        return finished

    def _hopeless(self, start: Start, entrant: Entrant, found: Run) -> bool:
        law = _foretold(start, entrant, found)
        return found.backprops is None and law is not None and law.low is not None and law.low > FAR * self.rules.budget


def _explained(found: Run, start: Start, entrant: Entrant) -> Run:
    """A run beside what was predicted of it, and why it ended as it did."""
    found = replace(found, predicted=_foretold(start, entrant, found))
    return replace(found, notes=(*run_notes(found, start.plateau), *found.notes))


def _foretold(start: Start, entrant: Entrant, found: Run) -> Prediction | None:
    return predicted(start.plateau, entrant.title, found.settings, model=start.problem.model, threshold=start.threshold)
