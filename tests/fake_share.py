"""A diag-share result that took no time."""

from dataclasses import replace

from hessdiag.questions import documents
from tests.documents import document


def fake_share(status="ok", **changes):
    """A result with the numbers of the example document."""
    return replace(documents.read(document("diag-share")), status=status, **changes)
