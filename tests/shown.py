"""Documents of every question, by the names that tests of what is shown go by."""

from report import example_documents

DOCUMENTS = {
    "exact": lambda: example_documents.diag_share(),
    "sampled": lambda: example_documents.diag_share(4, sampled=True, trajectory=True),
    "one-layer": lambda: example_documents.diag_share(1),
    "vanishing": lambda: example_documents.vanishing(),
    "vanishing-model": lambda: example_documents.vanishing_model(),
    "eigs": lambda: example_documents.eigs(),
    "eigs-exact": lambda: example_documents.eigs(30, exact=True),
    "blocks": lambda: example_documents.blocks(4),
    "blocks-exact": lambda: example_documents.blocks(16, exact=True),
    "blocks-objective": lambda: example_documents.blocks(1, objective=True),
    "spectrum": lambda: example_documents.spectrum(),
    "spectrum-exact": lambda: example_documents.spectrum(exact=True),
    "bounds": lambda: example_documents.bounds(30),
    "bounds-sketch": lambda: example_documents.bounds(sketch=True),
    "chain": lambda: example_documents.chain(),
    "chain-of-one": lambda: example_documents.chain(1, normal=True),
    "forward": lambda: example_documents.forward(),
    "forward-many": lambda: example_documents.forward(
        3, ("lecun", "he_normal", "orthogonal", "he_uniform", "lecun_normal"), solved=True
    ),
    "forward-model": lambda: example_documents.forward_model(),
    "forward-layers": lambda: example_documents.forward_layers(),
    "shallow": lambda: example_documents.vanishing(2),
}


def ruin(value, replacement):
    """The same document with every measured float replaced. A grid ascends as far as it has numbers, or it is damaged."""
    if isinstance(value, dict):
        kept = ("grid",) if replacement is not None else ()
        return {key: item if key in kept else ruin(item, replacement) for key, item in value.items()}
    if isinstance(value, list):
        return [ruin(item, replacement) for item in value]
    return replacement if isinstance(value, float) else value
