"""Two optimizers as one: Muon for the matrices of a network, AdamW for all else."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.optimizers.update import stepper, uncompiled

BESIDE_LR = 1e-3  # of AdamW beside Muon


class Jointly(torch.optim.Optimizer):
    """Optimizers of different parameters that step together.

    Attributes:
        main: The one whose settings are meant.
        parts: Both.
        said: What was given to the other.
    """

    def __init__(self, main: torch.optim.Optimizer, beside: torch.optim.Optimizer, said: str) -> None:
        self.parts = parts = (main, beside)
        with uncompiled():
            super().__init__(
                [parameter for part in parts for group in part.param_groups for parameter in group["params"]], {}
            )
        self.main, self.said = main, said
        self.param_groups = [group for part in parts for group in part.param_groups]  # the parts' own, not copies
        main.state = beside.state = self.state  # one for all, by parameter
        self._steps = [stepper(part, lambda: None) for part in parts]

    def step(self, closure: Any = None) -> Any:
        """Step both, with one evaluation of the closure where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for step in self._steps:
            step()
        return loss


def main_of(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer whose name and settings are meant."""
    return optimizer.main if isinstance(optimizer, Jointly) else optimizer


def muon(
    kind: type[torch.optim.Optimizer],
    model: nn.Module,
    named: Sequence[tuple[str, nn.Parameter]],
    keywords: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """Muon for weight matrices, and AdamW for biases, embeddings and convolutions, which Muon does not take.

    Args:
        kind: Torch's Muon.
        model: Tells which matrices are embeddings.
        named: What is trained.
        keywords: Of Muon.

    Raises:
        SpecError: if there is no matrix.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    matrices = [parameter for _, parameter in named if parameter.ndim == 2 and id(parameter) not in tables]
    chosen = set(map(id, matrices))
    others = [parameter for _, parameter in named if id(parameter) not in chosen]
    if not matrices:
        raise SpecError("Muon steps weight matrices, and none are trained here.", "adamw")
    main = kind(matrices, **keywords)
    if not others:
        return main
    says = (
        f"AdamW(lr={BESIDE_LR:g}) steps {len(others)} of {len(named)} tensors beside it: "
        "those that are no weight matrices"
    )
    return Jointly(main, torch.optim.AdamW(others, lr=BESIDE_LR), says)
