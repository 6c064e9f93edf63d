"""What a command line says of a problem, and what is gathered while that is loaded."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.problem.batches.data import ALL
from hessdiag.problem.files import checkpoint
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.lightning.step import TrainingStep
from hessdiag.problem.loading import online
from hessdiag.problem.losses import loss as losses
from hessdiag.problem.problem import Problem

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class ProblemRequest:
    """What the options of a command say about the problem.

    Attributes:
        model: Spec of the model, or of a function that returns model, batches and loss.
        weights: PATH[#KEY] of weights to load into the model.
        data: Spec of the batches; without it they are the model spec's own, or synthetic.
        loss: A name (`ce`, `mse`, `bce`, `nll`, `output`) or the spec of a function of (output, target).
        objective: Spec of a function of (model, batch) that returns a scalar; instead of `loss`.
        batches: How many batches to take, `ALL` for all; by default the first of an iterable, else all.
        batch_size: Cut batches to parts of at most so many samples, where these make the whole.
        samples: Take only the first so many samples of each batch, or draw so many; instead of `batch_size`.
        device: `auto` (a GPU where there is one and the problem is worth its start, else the CPU), `cpu`, `cuda`,
            `cuda:1`.
        dtype: A key of `DTYPES`; by default the model's own.
        seed: Of initialization, synthetic data and the dropout mask.
        layers: Glob over parameter names; only the matching ones are differentiated.
        train_mode: Evaluate in training mode.
        trust_code: Let files run code of their own.
        strict: Refuse weights of other names or shapes than the model's; else leave out what does not fit, and say so.
        broken_loss: Take a loss that is not finite or depends on no parameter: someone wants to know why.
        max_unpacked: Bytes that a file may unpack to; by default a multiple of its own size (`Allowance`).
        shard: Let each process keep only a piece of every parameter, read from the file where that can be.
    """

    model: str
    weights: str | None = None
    data: str | None = None
    loss: str | None = None
    objective: str | None = None
    batches: int | None = None
    batch_size: int | None = None
    samples: int | None = None
    device: str = "auto"
    dtype: str | None = None
    seed: int = 0
    layers: str | None = None
    train_mode: bool = False
    trust_code: bool = False
    strict: bool = True
    broken_loss: bool = False
    max_unpacked: int | None = None
    shard: bool = False

    def check(self) -> None:
        """Refuse what no file or model could make right, before anything costly is loaded.

        Raises:
            SpecError: saying which option.
        """
        for name, value in (("batches", self.batches), ("batch-size", self.batch_size), ("batch", self.samples)):
            if value is not None and value < 1 and (name, value) != ("batches", ALL):
                raise SpecError(f"--{name} must be at least 1, not {value}.", f"--{name} 1")
        if self.loss is not None and self.objective is not None:
            raise SpecError(
                "--loss and --objective exclude each other: an objective is the whole scalar.",
                "--objective alone",
            )
        if self.loss is not None and ":" not in self.loss and self.loss != "output":
            losses.resolve(self.loss)

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """What `dtype` names.

        Raises:
            SpecError: if it names nothing.
        """
        if self.dtype is not None and self.dtype not in DTYPES:
            raise SpecError(f"there is no dtype {self.dtype!r}; there are {', '.join(DTYPES)}.", "--dtype float64")
        return DTYPES[self.dtype] if self.dtype is not None else None


@dataclass
class Shared:
    """What several loads of one command have in common: each script runs once, each data file is read once."""

    scripts: dict[Path, ModuleType] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def hub_answers(self) -> bool:
        """Whether the Hugging Face hub can be reached, which takes seconds to find out where it cannot."""
        return online.hub_answers()


@dataclass(frozen=True)
class Parts:
    """What a model spec gave, before the options; `data` in any form that `as_batches` takes."""

    model: nn.Module
    data: Any = None
    loss: Any = None
    objective: Any = None
    reduction: losses.Reduction | None = None
    layers: str | None = None
    train_mode: bool = False
    seed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def free_form(self) -> bool:
        """Whether batches may be of any form: an objective takes them, and no training step."""
        return self.objective is not None and not isinstance(self.objective, TrainingStep)


@dataclass
class Session:
    """What is gathered while one request is loaded."""

    request: ProblemRequest
    shared: Shared
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stranger: Allowance | None = None  # of the file that the model itself was in
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    usual_loss: str = "mse"  # of a model that came without data, a loss and labels
    kind: Callable[..., Problem] = Problem  # what is made of model, batches and loss
    drawn: Callable[[Sequence[Any]], None] = lambda batches: None  # told of batches before a model sees them
    weights: tuple[Any, str, Path] | None = None  # of `--weights`, where it was looked at before it is loaded
    mapped: bool = False  # tensors of files stay where they are until they are read

    @property
    def scripts(self) -> dict[Path, ModuleType]:
        """Scripts that ran."""
        return self.shared.scripts

    def read(self, path: Path) -> Any:
        """What a file holds, within what the request lets it do and take."""
        request = self.request
        return checkpoint.read(path, trust_code=request.trust_code, most=request.max_unpacked, mapped=self.mapped)
