"""Files of weights that commands write."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hessdiag.cli import output
from hessdiag.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

USUAL = "weights.safetensors"


def destination(path: Path, suffixes: Sequence[str] = (".safetensors", ".pt", ".pth")) -> output.Destination:
    """Where weights may be written.

    Args:
        path: As it was asked for.
        suffixes: Of the files that the command writes.

    Raises:
        SpecError: if they may not, or the suffix is of no such file.
    """
    if path.suffix.lower() not in suffixes:
        better = output.beside(path, USUAL)
        raise SpecError(f"weights are saved as {' or '.join(suffixes[:2])}, not as {path.name}.", f"--save {better}")
    force = click.get_current_context().params["force"]
    return output.writable(path, path.suffix[1:].lower(), force=force, option="--save", usual=USUAL)


def write(to: output.Destination, state: "Mapping[str, Tensor]") -> None:
    """Write a state dict; tied tensors stand in a .safetensors file under each of their names.

    Raises:
        OutputError: if the file system refuses.
    """
    content = io.BytesIO()
    if to.form == "safetensors":
        from safetensors.torch import save

        content.write(save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}))
    else:
        import torch

        torch.save(dict(state), content)
    output.save(to, lambda stream: stream.write(content.getbuffer()), "--save")
