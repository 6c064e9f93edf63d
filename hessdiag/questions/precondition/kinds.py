"""The preconditioners that are compared, in the order in which they are measured, and what people call them."""

WORDS = {
    "none": "none",
    "diagonal": "diagonal of H",
    "ggn-diagonal": "diagonal of the GGN",
    "adam": "Adam's v",
    "blocks": "layer blocks of H",
    "kfac": "K-FAC",
    "ekfac": "EK-FAC",
    "shampoo": "Shampoo",
    "shampoo-squared": "Shampoo squared",
    "soap": "SOAP",
}
DIAGONALS = ("diagonal", "ggn-diagonal", "adam")
NAMES = {  # of optimizers whose second moments are compared
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adamax": "Adamax",
    "adadelta": "Adadelta",
}


def word(name: str) -> str:
    """What people call it.

    >>> word("kfac"), word("rmsprop")
    ('K-FAC', "RMSprop's v")
    """
    return WORDS.get(name) or f"{NAMES.get(name, name)}'s v"
