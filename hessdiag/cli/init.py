"""`hessdiag init`: a configuration to fill in."""

from pathlib import Path

import click

from hessdiag.cli.help import Command
from hessdiag.cli.output import writable, write_file

NAME = "hessdiag.toml"

TEMPLATE = """\
# Defaults for hessdiag in this folder. Command line and environment (HESSDIAG_SEED=1) win; --no-config ignores it.
# Commands find it and take its numbers and choices. Code and files (model, weights, data, output) count
# only where you name it: `hessdiag diag-share --config hessdiag.toml`. Paths count from this file.

[problem]
# loss = "ce"                        # ce, mse, bce, nll, output; with --config also losses.py:f of (output, target)
# batches = 1                        # or "all"
# batch_size = 64
# dtype = "float64"
# device = "auto"
# seed = 0
# model = "train.py:build_model"     # with --config; then `hessdiag diag-share w.pt --config ...` takes w.pt as weights
# weights = "model.pt"               # with --config
# data = "train.py:val_loader"       # with --config; or batch.npz with the arrays x and y

[diag-share]
# rows = 1000                        # or "all"

[vanishing]
# depth = 64
# width = 32
# activation = "relu"
# init = "he_uniform"
"""


@click.command("init", cls=Command)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(force: bool) -> int:
    """Write a commented hessdiag.toml into this folder."""
    instead = "cd into another folder, then hessdiag init"
    write_file(writable(Path(NAME), "toml", force=force, instead=instead), TEMPLATE)
    return 0
