"""Which questions a report asks, with which options: cheap ones, and those that their commands have unless told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hessdiag.questions import registry

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One question of a report.

    Attributes:
        command: Its name.
        rungs: Options as its function in Python takes them, the cheapest first; the last are the command's own.
        function: What measures, by its name in Python.
    """

    command: str
    rungs: tuple[Options, ...] = field(default=({},))
    function: str = ""

    def measure(self) -> Any:
        """The function of a problem that answers it."""
        asked = registry.question(self.command)
        name = self.function or self.command.replace("-", "_")
        return getattr(asked.module(asked.public[name]), name)


# As one would ask of a network that does not train: the cause, whether the steps are too large, which way curvature
# goes, the race away from a plateau where `check` finds one, what the initialization does; then the rest, what tells
# most for its price first. Where time is short, what is behind gets cheaper options, or none.
STEPS = (
    Step("check"),
    Step("sharpness"),
    Step("eigs", ({"lowest": 1, "highest": 1, "tol": 1e-2}, {"lowest": 2, "highest": 3, "tol": 1e-2}, {})),
    Step("escape", ({"seeds": 1, "budget": 50}, {"seeds": 1, "budget": 200}, {"seeds": 1, "budget": 1000})),
    Step("forward", ({"seeds": 20}, {"seeds": 60}, {}), "forward_model"),
    Step("trust-radius", ({"norms": ("uniform",)}, {})),
    Step("diag-share", ({"rows": 100}, {"rows": 300}, {})),
    Step("blocks", ({"probes": 4}, {"probes": 8}, {})),
    Step("spectrum", ({"probes": 3, "steps": 20}, {"probes": 5, "steps": 40}, {})),
    Step("precondition", ({"steps": 40, "probes": 2}, {"steps": 100, "probes": 2}, {})),
    Step("bounds"),
)
REDRAWN = "forward"  # of networks that are drawn anew: the last thing to know of one that is trained
READING = (
    *("check", "escape", "sharpness", "eigs", "spectrum", "blocks", "diag-share"),
    *("trust-radius", "bounds", "precondition"),
)
CURVED = tuple(step.command for step in STEPS if step.command not in ("check", "forward", "escape"))
OF_OPTIMIZER = {"check": ("optimizer", "lr"), "sharpness": ("optimizer", "lr", "state")}
OF_MOMENTS = OF_OPTIMIZER | {"precondition": ("optimizer", "state")}  # of one whose second moments a file holds

_FLAGS = {"norms": "norm"}


def words(options: Options) -> tuple[str, ...]:
    """Options as a command line has them.

    >>> words({"lowest": 1, "tol": 0.01, "norms": ("uniform",)})
    ('--lowest', '1', '--tol', '0.01', '--norm', 'uniform')
    """
    pairs = [
        (f"--{_FLAGS.get(name, name).replace('_', '-')}", value)
        for name, held in options.items()
        for value in (held if isinstance(held, tuple) else (held,))
    ]
    return tuple(
        word for flag, value in pairs for word in (flag, f"{value:g}" if isinstance(value, float) else str(value))
    )


def step(command: str) -> Step:
    """The step of a command."""
    return next(one for one in STEPS if one.command == command)


def reading_order(command: str) -> int:
    """Where it stands in the report."""
    return (*READING, *registry.NAMES).index(command)
