"""`hessdiag ls`: what can be named on the command line."""

import click

from hessdiag.cli.main import COMMANDS
from hessdiag.cli.output import write
from hessdiag.nets import ACTIVATIONS, BUILTINS, INITS

LOSSES = {
    "ce": "cross-entropy of logits, mean over targets",
    "nll": "negative log-likelihood of log-probabilities, mean over targets",
    "mse": "squared error, mean over samples and outputs",
    "bce": "binary cross-entropy of logits, mean over samples and outputs",
    "output": "the loss that the model itself returns, as Hugging Face models do",
}

SPECS = {
    "builtin:mlp(width=32, depth=4)": "a network of this package, with keyword arguments",
    "train.py:build_model": "a function or object in a script; code that you name runs",
    "pkg.module:setup(width=32)": "the same in a module; it may return (model, batches, loss)",
    "model.pt": "a saved module of stock torch layers",
    "model.safetensors, ckpt.pt#ema": "weights, for --weights; #KEY picks one of several",
    "batch.npz, batch.npz#images,labels": "arrays x and y, for --data; #X,Y names others",
    "./data_batch_1, train-images-idx3-ubyte.gz": "images of CIFAR, MNIST or Fashion-MNIST, for --data",
    "builtin:digits(size=32, channels=3)": "scikit-learn's digits, for --data (pip install scikit-learn)",
    "hf:NAME_OR_FOLDER[@REVISION]": "a transformers model (pip install transformers)",
    "timm:NAME, torchvision:NAME": "a model by name, where the package is installed",
    "file:PATH": "a path that looks like something else",
}

DIAGNOSTICS = ("diag-share", "eigs", "spectrum", "bounds", "blocks", "forward", "vanishing", "chain")

TOPICS = {
    "builtins": {f"builtin:{name}": text for name, (_, text) in BUILTINS.items()},
    "losses": LOSSES,
    "inits": INITS,
    "activations": ACTIVATIONS,
    "diagnostics": {name: COMMANDS[name][1] for name in DIAGNOSTICS},
    "specs": SPECS,
}


@click.command("ls")
@click.argument("topic", metavar="[TOPIC]", required=False, type=click.Choice(list(TOPICS)))
def command(topic: str | None) -> int:
    """List what can be named on the command line, each with one line of explanation.

    TOPIC is one of builtins, losses, inits, activations, diagnostics and specs; without it, all are listed.
    """
    chosen = [topic] if topic else list(TOPICS)
    width = max(len(name) for key in chosen for name in TOPICS[key])
    blocks = []
    for key in chosen:
        lines = [f"{name:<{width}}  {text}" for name, text in TOPICS[key].items()]
        blocks.append("\n".join([key, *(f"  {line}" for line in lines)] if topic is None else lines))
    write("\n\n".join(blocks) + "\n")
    return 0
