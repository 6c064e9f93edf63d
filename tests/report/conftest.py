import pytest

from hessdiag.questions.pages import render
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


@pytest.fixture(params=DOCUMENTS)
def doc(request):
    return DOCUMENTS[request.param]()


@pytest.fixture(scope="session")
def _pages():
    return {}


@pytest.fixture
def html(doc, request, _pages):
    """The page of `doc`, drawn once for all tests that only look at it."""
    name = request.node.callspec.params["doc"]
    if name not in _pages:
        _pages[name] = render(doc, "html")
    return _pages[name]
