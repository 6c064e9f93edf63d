"""How many backpropagations each run may take, and who has to stay out, so that a race ends in time."""

from collections.abc import Sequence
from dataclasses import dataclass

from hessdiag.numbers import number
from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.effort import effort, gradient_seconds, look_seconds
from hessdiag.questions.escape.runs.draws import Order, is_whole
from hessdiag.questions.escape.start import Start

BUDGET = 1000  # backpropagations of a run
ENOUGH = 300  # below, runs of each contender become fewer: most that leave a plateau do so within that
FEWEST = 50  # below, a contender that nobody asked for stays out
LEAST = 20  # however slow it is
PART = 0.5  # of the time that is granted: what is planned with
SEARCH = 1 / 3  # of the budget: what each learning rate gets that is tried
LOOKS = 0.2  # looks per backpropagation, about
CURVED = 2.0  # gradients that a backpropagation with curvature costs, on average


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
    def runs(self) -> float:
        """All of them in full ones, the search included."""
        return sum(self.seeds[one.name] + searching(one) for one in self.entrants)


def searching(entrant: Entrant) -> float:
    """What the search for a learning rate takes, in full runs."""
    return SEARCH * len(entrant.rates)


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
    look = LOOKS * look_seconds(start)
    paces = {}
    for one in entrants:
        if one.usual and one.kind == "second":  # whose steps may take long
            own = CURVED * gradient_seconds(start, one.samples, order)
        else:
            own = effort(start, one, order)
        paces[one.name] = own + look * (not is_whole(start.problem, one.samples, order))
    within, too_slow = list(entrants), []

    def affordable(seeds: int) -> int:
        runs = ((paces[one.name], _seeds(start, one, order, seeds, fresh) + searching(one)) for one in within)
        cost = sum(pace * count for pace, count in runs)
        return int(PART * seconds / cost) if cost else BUDGET

    fewer = seeds
    while fewer > 1 and budget is None and affordable(fewer) < ENOUGH:
        fewer -= 1
    while budget is None and affordable(fewer) < FEWEST and sum(one.usual for one in within) > 1:
        dearest = max((one for one in within if one.usual), key=lambda one: (one.kind == "second", paces[one.name]))
        within.remove(dearest)
        pace = number(paces[dearest.name] * FEWEST, 2)
        too_slow.append(
            f"{dearest.name}: {FEWEST} backpropagations take about {pace} s; --optimizer {dearest.name} runs it"
        )
    if fewer < seeds:
        which = f"runs {fewer + 1} to {seeds}" if fewer + 1 < seeds else f"run {seeds}"
        too_slow.append(f"{which} of each: --time-budget {3 * seconds:g} has time for more")
    granted = budget if budget is not None else max(LEAST, min(BUDGET, _round(affordable(fewer))))
    alone = {one.name: _seeds(start, one, order, fewer, fresh) for one in within}
    return Plan(tuple(within), granted, alone, tuple(too_slow))


def _seeds(start: Start, entrant: Entrant, order: Order, seeds: int, fresh: bool) -> int:
    """Runs of one entrant: a single one where all would be the same."""
    same = order == "stream" or is_whole(start.problem, entrant.samples, order)
    return 1 if same and not fresh and not entrant.draws else seeds


def _round(count: int) -> int:
    """Two digits, downwards."""
    size: int = 10 ** max(len(str(count)) - 2, 0)
    return count // size * size
