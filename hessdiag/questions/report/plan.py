"""Which questions fit in the time that is left, and with which options. Pure: prices in, choices out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SPARE = 1.25  # times what a better answer takes more, as announced: prices are off by so much

Prices = Mapping[str, Sequence[float]]  # seconds of each rung of a question, the cheapest first


@dataclass(frozen=True)
class Chosen:
    """A question that is going to be asked.

    Attributes:
        command: Its name.
        rung: Which of its options.
        seconds: What that takes, as announced.
    """

    command: str
    rung: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What is going to be asked, and what is not.

    Attributes:
        chosen: In the order in which they are asked.
        dear: What the cheapest form takes of each question that there is no time for.
    """

    chosen: tuple[Chosen, ...] = ()
    dear: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """All that is chosen."""
        return sum(one.seconds for one in self.chosen)


def planned(prices: Prices, budget: float) -> Plan:
    """Ask as many questions as fit, in order of importance; then all of them better, step by step, while there is time.

    Better answers leave some time over: one that the budget ends may have less to say than a cheap one that is whole.

    Args:
        prices: By question, in order of importance.
        budget: Seconds; infinity for no limit.

    >>> plan = planned({"eigs": (1.0, 6.0), "blocks": (20.0,), "bounds": (2.0,)}, 10.0)
    >>> [(one.command, one.rung) for one in plan.chosen], plan.dear
    ([('eigs', 1), ('bounds', 0)], {'blocks': 20.0})
    """
    rungs: dict[str, int] = {}
    left = budget
    for command, each in prices.items():
        if each[0] <= left:
            rungs[command] = 0
            left -= each[0]
    for rung in range(1, max((len(each) for each in prices.values()), default=0)):
        for command in rungs:
            each, now = prices[command], rungs[command]
            if now == rung - 1 and rung < len(each) and SPARE * (each[rung] - each[now]) <= left:
                left -= each[rung] - each[now]
                rungs[command] = rung
    chosen = tuple(Chosen(command, rung, prices[command][rung]) for command, rung in rungs.items())
    return Plan(chosen, {command: each[0] for command, each in prices.items() if command not in rungs})


def better(prices: Prices, asked: Mapping[str, int], left: float) -> Chosen | None:
    """What to ask once more, with better options, in time that is left over; `None` where nothing fits.

    Args:
        prices: By question, in order of importance.
        asked: With which of its options each was.
        left: Seconds.

    >>> better({"eigs": (1.0, 6.0, 9.0), "blocks": (2.0, 5.0)}, {"eigs": 0, "blocks": 0}, 7.0)
    Chosen(command='eigs', rung=1, seconds=6.0)
    """
    for command, each in prices.items():
        for rung in range(len(each) - 1, asked[command], -1):
            if each[rung] <= left:
                return Chosen(command, rung, each[rung])
    return None
