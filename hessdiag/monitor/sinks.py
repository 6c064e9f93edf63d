"""Where curves go beside the log: TensorBoard and Weights & Biases. Neither is imported unless it is asked for."""

import os
from collections.abc import Callable
from typing import Any

from hessdiag.errors import LoadError, SpecError
from hessdiag.packages import lacking
from hessdiag.questions.report.run.record import Record

PREFIX = "hessdiag"
Sink = Callable[[Record], None]


def to_tensorboard(target: Any) -> tuple[Sink, Callable[[], None]]:
    """What writes to TensorBoard, and what closes it.

    Args:
        target: A `SummaryWriter`, which stays open; or the folder of a new one.

    Raises:
        LoadError: if the package is missing.
        SpecError: if it is neither.
    """
    own = isinstance(target, (str, os.PathLike))
    if own:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            what, cure = lacking(error) or (str(error), "pip install tensorboard")
            raise LoadError(f"TensorBoard's logs need {what}.", cure) from error
        writer: Any = SummaryWriter(os.fspath(target))
    else:
        writer = target
        if not callable(getattr(writer, "add_scalar", None)):
            raise SpecError(f"a {type(target).__name__} has no add_scalar.", "tensorboard='runs/one'")

    def write(record: Record) -> None:
        for name, value in record.scalars().items():
            writer.add_scalar(f"{PREFIX}/{name}", value, record.step)
        writer.flush()

    return write, writer.close if own else lambda: None


def to_wandb(run: Any) -> Sink:
    """What writes to a run of Weights & Biases.

    Numbers go along with what training logs next, whose steps are left as they are; curves are drawn over
    `hessdiag/step`.

    Args:
        run: What `wandb.init()` gave.

    Raises:
        SpecError: if it is no run.
    """
    if not callable(getattr(run, "define_metric", None)):
        raise SpecError(f"a {type(run).__name__} is no run of Weights & Biases.", "wandb=wandb.init()")
    run.define_metric(f"{PREFIX}/step", hidden=True)
    run.define_metric(f"{PREFIX}/*", step_metric=f"{PREFIX}/step")

    def write(record: Record) -> None:
        numbers = {f"{PREFIX}/{name}": value for name, value in record.scalars().items()}
        run.log({**numbers, f"{PREFIX}/step": record.step}, commit=False)

    return write
