"""`MonitorCallback`: a `Monitor` that a `transformers.Trainer` runs, on the loss that the model itself returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from hessdiag.errors import SpecError
from hessdiag.monitor.monitor import Monitor
from hessdiag.monitor.untouched import untouched
from hessdiag.problem.batches.batch import map_tensors
from hessdiag.problem.problem import Problem


class MonitorCallback(TrainerCallback):
    """Looks at the model while a Trainer trains it, and leaves training as it is.

    The loss is the one that the model returns for a batch with labels; steps are those of the Trainer's `global_step`.

    Args:
        data: Batches to look at, as the model takes them: mappings with labels. Default: the first samples of the
            training set, as many as a device's batch, put together by the Trainer's own collator.
        every: Steps between looks, at least.
        budget: Share of training's time that all looks may take; `None` for no limit.
        options: As `hessdiag.Monitor` takes them: `quantities`, `log`, `tensorboard`, `wandb`, `seed`, ... The
            optimizer is the Trainer's.

    Attributes:
        monitor: Once training has begun.

    Raises:
        SpecError: when training begins, if the training set has no length and no `data` were given.

    Example:
        >>> from transformers import Trainer  # doctest: +SKIP
        >>> trainer = Trainer(model, args, callbacks=[MonitorCallback(log="run.jsonl")])  # doctest: +SKIP
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]] | None = None,
        every: int = 50,
        budget: str | float | None = "5%",
        **options: Any,
    ) -> None:
        self._data, self._every, self._budget, self._options = data, every, budget, options
        self.monitor: Monitor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Take the live model, its optimizer and a fixed batch."""
        self._close()
        model, optimizer = parts["model"], parts.get("optimizer")
        device = next(model.parameters()).device
        with untouched(model, device):  # a collator may draw masks
            data = self._data if self._data is not None else [_first(parts["train_dataloader"], args)]
            placed = [map_tensors(lambda held: held.to(device), batch) for batch in data]
        options = {"optimizer": getattr(optimizer, "optimizer", optimizer), **self._options}  # accelerate wraps it
        self.monitor = Monitor(Problem(model, data=placed, loss="output"), self._every, self._budget, **options)

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Say that the optimizer has stepped."""
        if self.monitor is not None:
            self.monitor.step(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Close the log."""
        self._close()

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()


def _first(loader: Any, args: Any) -> Any:
    """The first samples of what is trained on: not the loader's first batch, for that would draw its order."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or isinstance(dataset, torch.utils.data.IterableDataset):
        raise SpecError(
            "the training set is a stream, of which no sample can be looked at.", "MonitorCallback(data=[batch])"
        )
    count = min(args.per_device_train_batch_size, len(dataset))
    return loader.collate_fn([dataset[index] for index in range(count)])
