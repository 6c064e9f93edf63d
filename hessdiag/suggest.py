"""What somebody may have meant who typed a name that is not known."""

import difflib
from collections.abc import Iterable, Mapping

LOSSES = {
    "cross_entropy": "ce",
    "crossentropy": "ce",
    "crossentropyloss": "ce",
    "xent": "ce",
    "softmax": "ce",
    "l2": "mse",
    "mseloss": "mse",
    "mse_loss": "mse",
    "squared": "mse",
    "binary_cross_entropy": "bce",
    "bceloss": "bce",
    "bcewithlogitsloss": "bce",
    "nllloss": "nll",
    "nll_loss": "nll",
    "model": "output",
    "hf": "output",
}
NAMES = {  # of initializations, activations and whatever else has names
    "he": "he_normal",
    "kaiming": "he_normal",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier": "xavier_normal",
    "glorot": "xavier_uniform",
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier_uniform",
    "torch": "lecun",
    "default": "lecun",
    "ortho": "orthogonal",
    "identity": "linear",
    "none": "linear",
    "leakyrelu": "leaky_relu",
    "double": "float64",
    "fp64": "float64",
    "float": "float32",
    "fp32": "float32",
    "half": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "gaussian": "normal",
    "md": "markdown",
    "txt": "text",
}


def meant(word: str, known: Iterable[str], aliases: Mapping[str, str] = NAMES) -> str | None:
    """The known name that is nearest to a word: by what else it is called, or by its letters.

    >>> meant("he_norml", ["he_uniform", "he_normal"]), meant("Kaiming", ["he_uniform", "he_normal"])
    ('he_normal', 'he_normal')
    >>> meant("xyz", ["he_uniform", "he_normal"]) is None
    True
    """
    names = list(known)
    plain = word.lower().replace("-", "_")
    if aliases.get(plain) in names:
        return aliases[plain]
    close = difflib.get_close_matches(plain, names, n=1)
    return close[0] if close else None


def question(word: str, known: Iterable[str], aliases: Mapping[str, str] = NAMES) -> str:
    """The same as a question to end a message with; empty where nothing is near.

    >>> question("reul", ["linear", "relu"])
    ' Did you mean relu?'
    """
    found = meant(word, known, aliases)
    return f" Did you mean {found}?" if found else ""
