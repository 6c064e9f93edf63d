"""A diag-share result that took no time."""

import msgspec
from report import example_documents

from hessdiag.questions.diag_share.result import DiagShare

DOCUMENT = example_documents.diag_share(2)


def fake_share(status="ok", **changes):
    """A result with the numbers of the example document."""
    numbers = {
        "negative_certificate": {"certain": False, "bound": None, "why": "made up"},
        "untouched": 0,
        "merged_strata": (),
        "hvps": 0,
        "engine": "made up",
        **DOCUMENT["result"],
        **changes,
    }
    return msgspec.convert({**numbers, "status": status, "checks": DOCUMENT["checks"]}, DiagShare)
