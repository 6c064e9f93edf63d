"""Documents of every question, by the names that tests of what is shown go by."""

from tests.documents import document, of_layers

DOCUMENTS = {
    "exact": lambda: document("diag-share"),
    "sampled": lambda: document("diag-share-trajectory"),
    "one-layer": lambda: document("diag-share-one"),
    "vanishing": lambda: document("vanishing"),
    "vanishing-model": lambda: document("vanishing-model"),
    "eigs": lambda: document("eigs"),
    "eigs-exact": lambda: of_layers(document("eigs-exact"), 30),
    "eigs-metric": lambda: document("eigs-metric"),
    "share-metric": lambda: document("diag-share-metric"),
    "spectrum-metric": lambda: document("spectrum-metric"),
    "bounds-metric": lambda: document("bounds-metric"),
    "blocks": lambda: of_layers(document("blocks"), 4),
    "blocks-exact": lambda: of_layers(document("blocks-exact"), 16),
    "blocks-objective": lambda: document("blocks-objective"),
    "blocks-by": lambda: document("blocks-by"),
    "blocks-by-neuron": lambda: document("blocks-by-neuron"),
    "blocks-by-sampled": lambda: document("blocks-by-sampled"),
    "spectrum": lambda: document("spectrum"),
    "spectrum-exact": lambda: document("spectrum-exact"),
    "bounds": lambda: of_layers(document("bounds"), 30),
    "bounds-sketch": lambda: document("bounds-sketch"),
    "chain": lambda: document("chain"),
    "chain-of-one": lambda: document("chain-one"),
    "forward": lambda: document("forward"),
    "forward-many": lambda: document("forward-solve"),
    "forward-model": lambda: document("forward-model"),
    "forward-layers": lambda: document("forward-layers"),
    "shallow": lambda: document("vanishing-shallow"),
    "report": lambda: document("report"),
    "report-run": lambda: document("report-run"),
    "transfer": lambda: document("transfer"),
    "transfer-mup": lambda: document("transfer-mup"),
    "escape": lambda: document("escape"),
    "escape-score": lambda: document("escape-score"),
    "compare": lambda: document("compare"),
    "compare-course": lambda: document("compare-course"),
}


def ruin(value, replacement):
    """The same document with every measured float replaced. A grid ascends as far as it has numbers, or it is damaged."""
    if isinstance(value, dict):
        kept = ("grid",) if replacement is not None else ()
        return {key: item if key in kept else ruin(item, replacement) for key, item in value.items()}
    if isinstance(value, list):
        return [ruin(item, replacement) for item in value]
    return replacement if isinstance(value, float) else value
