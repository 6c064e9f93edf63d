"""How many backpropagations each run may take, and who has to stay out, so that a race ends in time."""

from collections.abc import Sequence
from dataclasses import dataclass

from hessdiag.numbers import number
from hessdiag.questions.escape.contenders import CURVATURE_SAMPLES, Entrant
from hessdiag.questions.escape.effort import effort, gradient_seconds, look_seconds
from hessdiag.questions.escape.runs.draws import Order, is_whole
from hessdiag.questions.escape.start import Start

BUDGET = 1000  # backpropagations of a run
FEWEST = 100  # below, a contender that nobody asked for stays out
LEAST = 20  # however slow it is
PART = 0.5  # of the time that is granted: what is planned with
LOOKS = 0.2  # looks per backpropagation, about
CURVED = 3.0  # gradients that a product with curvature costs, with its part of the gradient


@dataclass(frozen=True)
class Plan:
    """What is going to be run.

    Attributes:
        entrants: Those that take part.
        budget: Backpropagations of each run.
        seeds: Runs of each entrant, beside the search for its learning rate.
        too_slow: Those that stay out, and why.
    """

    entrants: tuple[Entrant, ...]
    budget: int
    seeds: dict[str, int]
    too_slow: tuple[str, ...]

    @property
    def runs(self) -> int:
        """All of them, the search included."""
        return sum(self.seeds[one.name] + searching(one) for one in self.entrants)


def searching(entrant: Entrant) -> int:
    """Runs that the search for a learning rate takes, beside the first network's own."""
    return max(len(entrant.rates) - 1, 0)


def planned(
    start: Start,
    entrants: Sequence[Entrant],
    order: Order,
    *,
    seeds: int,
    fresh: bool,
    budget: int | None,
    seconds: float,
) -> Plan:
    """Plan a race.

    Args:
        start: The first network.
        entrants: Who wants to take part.
        order: Of samples.
        seeds: Runs of each, beside the search.
        fresh: Whether each is on another network.
        budget: That was asked for; `None` for the usual, or what there is time for.
        seconds: That are granted for all of it.
    """
    runs = {one.name: _seeds(start, one, order, seeds, fresh) + searching(one) for one in entrants}
    within, too_slow, paces = [], [], {}
    look = LOOKS * look_seconds(start)
    for one in entrants:
        rough = 0.0
        if one.usual and one.kind == "second":
            rough = CURVED * gradient_seconds(start, CURVATURE_SAMPLES, order)
        if rough * FEWEST * runs[one.name] > seconds:
            too_slow.append(_left_out(one, rough, runs[one.name]))
            continue
        within.append(one)
        paces[one.name] = look * (not is_whole(start.problem, one.samples, order)) + effort(start, one, order)
    while True:
        cost = sum(paces[one.name] * runs[one.name] for one in within)
        affordable = int(PART * seconds / cost) if cost else BUDGET
        usual = [one for one in within if one.usual]
        if affordable >= FEWEST or budget is not None or len(usual) < 2:
            break
        dearest = max(usual, key=lambda one: (one.kind == "second", paces[one.name] * runs[one.name]))
        within.remove(dearest)
        too_slow.append(_left_out(dearest, paces[dearest.name], runs[dearest.name]))
    granted = budget if budget is not None else max(LEAST, min(BUDGET, _round(affordable)))
    alone = {one.name: _seeds(start, one, order, seeds, fresh) for one in within}
    return Plan(tuple(within), granted, alone, tuple(too_slow))


def _seeds(start: Start, entrant: Entrant, order: Order, seeds: int, fresh: bool) -> int:
    """Runs of one entrant: a single one where all would be the same."""
    same = order == "stream" or is_whole(start.problem, entrant.samples, order)
    return 1 if same and not fresh and not entrant.draws else seeds


def _round(count: int) -> int:
    """Two digits, downwards."""
    size: int = 10 ** max(len(str(count)) - 2, 0)
    return count // size * size


def _left_out(one: Entrant, pace: float, runs: int) -> str:
    seconds = number(pace * FEWEST * runs, 2)
    return (
        f"{one.name}: {FEWEST} backpropagations in each of {runs} runs would take about {seconds} s; name it to run it"
    )
