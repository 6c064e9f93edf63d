import pytest

from report import example_documents

DOCUMENTS = {
    "exact": lambda: example_documents.diag_share(),
    "sampled": lambda: example_documents.diag_share(4, sampled=True, trajectory=True),
    "one-layer": lambda: example_documents.diag_share(1),
    "vanishing": lambda: example_documents.vanishing(),
    "shallow": lambda: example_documents.vanishing(2),
}


@pytest.fixture(params=DOCUMENTS)
def doc(request):
    return DOCUMENTS[request.param]()
