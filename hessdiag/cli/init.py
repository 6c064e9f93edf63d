"""`hessdiag init`: a configuration to fill in."""

from pathlib import Path

import click

from hessdiag.cli.output import write_file
from hessdiag.errors import SpecError

NAME = "hessdiag.toml"

TEMPLATE = """\
# Defaults for hessdiag in this folder. The command line wins; --no-config ignores this file.
# Paths count from this file. With a model here, `hessdiag diag-share w.pt` takes w.pt for its weights.

[problem]
# model = "train.py:build_model"     # a function that returns the network; see `hessdiag ls specs`
# weights = "model.pt"
# data = "train.py:val_loader"       # or batch.npz with the arrays x and y
# loss = "ce"                        # ce, mse, bce, nll, output, or losses.py:f of (output, target)
# batches = 1                        # or "all"
# batch_size = 64
# dtype = "float64"
# device = "auto"
# seed = 0

[diag-share]
# rows = 1000                        # or "all"

[vanishing]
# depth = 64
# width = 32
# activation = "relu"
# init = "he_uniform"
"""


@click.command("init")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(force: bool) -> int:
    """Write a commented hessdiag.toml into this folder."""
    path = Path(NAME)
    if path.exists() and not force:
        raise SpecError(f"{NAME} exists.", "hessdiag init --force")
    write_file(path, TEMPLATE)
    return 0
