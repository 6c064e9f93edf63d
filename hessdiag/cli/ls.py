"""`hessdiag ls`: what can be named on the command line."""

import click

from hessdiag.cli.help import Command
from hessdiag.cli.kinds import Names
from hessdiag.cli.output import write
from hessdiag.errors import SpecError
from hessdiag.nets import ACTIVATIONS, BUILTINS, INITS, TASKS
from hessdiag.optimizers.registry import OPTIMIZERS
from hessdiag.questions.metrics import MEANINGS
from hessdiag.questions.registry import NAMES, QUESTIONS

LOSSES = {
    "ce": "cross-entropy of logits, mean over targets",
    "nll": "negative log-likelihood of log-probabilities, mean over targets",
    "mse": "squared error, mean over samples and outputs",
    "bce": "binary cross-entropy of logits, mean over samples and outputs",
    "output": "the loss that the model itself returns, as Hugging Face models do",
}

SPECS = {
    "builtin:mlp(width=32, depth=4)": "a network of this package, with keyword arguments",
    "builtin:deep_mlp(init='lecun')": "a training task of this package: a network with its data and loss",
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

TOPICS = {
    "builtins": {f"builtin:{name}": text for name, (_, text) in (BUILTINS | TASKS).items()},
    "losses": LOSSES,
    "optimizers": {name: entry.says for name, entry in OPTIMIZERS.items()},
    "inits": INITS,
    "activations": ACTIVATIONS,
    "diagnostics": {asked.name: asked.help for asked in QUESTIONS},
    "specs": SPECS,
}
METRICS = "metrics"


@click.command("ls", cls=Command)
@click.argument("topic", metavar="[TOPIC]", required=False, type=Names((*TOPICS, METRICS)))
@click.argument("of", metavar="[COMMAND]", required=False, type=click.Choice(NAMES))
def command(topic: str | None, of: str | None) -> int:
    """List what can be named on the command line, each with one line of explanation.

    TOPIC is one of builtins, losses, optimizers, inits, activations, diagnostics, specs and metrics; without it, all
    but the last are listed. Metrics are the numbers that --fail-if takes, of one COMMAND or of all.

    \b
    hessdiag ls builtins
    hessdiag ls metrics eigs
    """  # noqa: D301
    if of is not None and topic != METRICS:
        raise SpecError(f"only metrics are those of a command; {topic} are of none.", f"hessdiag ls {topic}")
    if topic == METRICS:
        listed = {of: MEANINGS[of]} if of else dict(MEANINGS)
    else:
        listed = {topic: TOPICS[topic]} if topic else dict(TOPICS)
    width = max(len(name) for table in listed.values() for name in table)
    blocks = []
    for key, table in listed.items():
        lines = [f"{name:<{width}}  {text}" for name, text in table.items()]
        blocks.append("\n".join([key, *(f"  {line}" for line in lines)] if len(listed) > 1 else lines))
    write("\n\n".join(blocks) + "\n")
    return 0
