"""`MonitorCallback`: a `Monitor` that a Lightning Trainer runs, on the loss of the module's own training step."""

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hessdiag.monitor.monitor import Monitor
from hessdiag.problem.batches.batch import map_tensors
from hessdiag.problem.lightning.kinds import HOMES
from hessdiag.problem.problem import Problem

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:
    _home = next((home for home in HOMES if home in sys.modules), HOMES[0])  # the one that the user's Trainer is of
    Callback = importlib.import_module(_home).Callback


class MonitorCallback(Callback):
    """Looks at the module while a Trainer trains it, and leaves training as it is.

    The module is looked at by its `training_step`, on fixed batches; steps are those of the Trainer's `global_step`.
    Import it after the package that your Trainer is of, `lightning` or `pytorch_lightning`.

    Args:
        data: Batches to look at, as the training step takes them. Default: the first that is trained on.
        every: Steps between looks, at least.
        budget: Share of training's time that all looks may take; `None` for no limit.
        options: As `hessdiag.Monitor` takes them: `quantities`, `log`, `tensorboard`, `wandb`, `seed`, ... The
            optimizer is the Trainer's, where it has one.

    Attributes:
        monitor: From the first batch on.

    Example:
        >>> import lightning as L  # doctest: +SKIP
        >>> trainer = L.Trainer(callbacks=[MonitorCallback(every=50, log="run.jsonl")])  # doctest: +SKIP
    """

    def __init__(
        self,
        data: Sequence[Any] | None = None,
        every: int = 50,
        budget: str | float | None = "5%",
        **options: Any,
    ) -> None:
        super().__init__()
        self._data, self._every, self._budget, self._options = data, every, budget, options
        self._step = 0
        self.monitor: Monitor | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin with the first batch."""
        if self.monitor is not None:
            return
        data = self._data if self._data is not None else [map_tensors(torch.clone, batch)]
        optimizers = trainer.optimizers
        options = {"optimizer": optimizers[0] if len(optimizers) == 1 else None, **self._options}
        self._step = trainer.global_step
        self.monitor = Monitor(Problem(pl_module, data=data), self._every, self._budget, **options)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Say that the optimizer has stepped, where it has: gradients may be accumulated."""
        if self.monitor is not None and trainer.global_step != self._step:
            self._step = trainer.global_step
            self.monitor.step(self._step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the log."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close the log, which has all looks so far."""
        self._close()

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
