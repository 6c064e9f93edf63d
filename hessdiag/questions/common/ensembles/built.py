"""Networks that a spec builds anew for every size and seed, and the options of a command that say how."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hessdiag.questions.common.result import ModelSubject

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from hessdiag.problem.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Options of such networks, by the names of their flags."""

    batch: int | None
    data: str | None
    loss: str | None
    objective: str | None
    seed: int
    device: str
    dtype: str | None
    trust_code: bool
    max_unpacked: int | None
    resume: str | None

    def subject(self, spec: str) -> ModelSubject:
        """What would have been measured, where an interrupt came before any network was built."""
        dtype = self.dtype or "its own"
        return ModelSubject(model=spec, spec=spec, device=self.device, dtype=dtype, seed=self.seed)


def as_training_starts(batch: int | None) -> dict[str, Any]:
    """How such networks are loaded: in training mode, for the running statistics of a fresh BatchNorm saw no data."""
    return {"samples": batch, "batches": 1, "train_mode": True}


def builder(
    at_size: Callable[[int], str], asked: Fresh, scripts: "dict[Path, ModuleType] | None" = None
) -> "Callable[[int, int], Problem]":
    """A function of (size, seed) that builds a network in training mode; data and code are loaded once for all.

    Args:
        at_size: The spec of the network of one size.
        asked: How it is built.
        scripts: Takes the scripts that ran.
    """
    from hessdiag.problem.load import ProblemRequest, Shared, load_problem

    shared = Shared() if scripts is None else Shared(scripts=scripts)

    def build(size: int, seed: int) -> "Problem":
        request = ProblemRequest(
            at_size(size),
            data=asked.data,
            loss=asked.loss,
            objective=asked.objective,
            device=asked.device,
            dtype=asked.dtype,
            seed=seed,
            trust_code=asked.trust_code,
            max_unpacked=asked.max_unpacked,
            **as_training_starts(asked.batch),
        )
        return load_problem(request, shared)

    return build
