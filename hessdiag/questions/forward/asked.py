"""What is asked of random networks, of the built-in ones as of a user's own."""

from dataclasses import dataclass
from typing import Any

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import Distribution
from hessdiag.questions.common.ensembles.plan import drawn_from
from hessdiag.questions.forward.result import Target

INITS = ("lecun", "xavier_normal", "he_normal")  # side by side, unless told otherwise


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which random networks, and what is solved for.

    Attributes:
        inits: Initializations, each once.
        seeds: Networks of each.
        seed: Of all randomness.
        distribution: Of the weights, in place of the initializations' own.
        solve: What a gain is to make 1; `None` for no gain.
        per_layer: Whether there is to be one for each layer.

    Raises:
        SpecError: if an initialization is unknown, or a gain cannot be solved for.
    """

    inits: tuple[str, ...]
    seeds: int
    seed: int
    distribution: Distribution | None
    solve: Target | None
    per_layer: bool

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.solve not in (None, "median", "rms"):
            raise SpecError(f"--solve is median or rms, not {self.solve!r}.", "--solve median")
        if self.per_layer and self.solve is None:
            raise SpecError("--per-layer needs to know what to keep.", "--solve median --per-layer")
        for init in self.inits:
            drawn_from(init, self.distribution)

    @property
    def settings(self) -> dict[str, Any]:
        """The same as finished pieces are kept under."""
        return {
            "init": self.inits, "seeds": self.seeds, "seed": self.seed, "distribution": self.distribution,
            "solve": self.solve, "per_layer": self.per_layer,
        }  # fmt: skip
