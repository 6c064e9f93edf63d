"""A diag-share result that took no time."""

from types import SimpleNamespace

from report import example_documents


class FakeShare:
    """A diag-share result with the numbers of the example document."""

    def __init__(self, status="ok", **changes):
        self.doc = example_documents.diag_share(2)
        self.doc["result"].update(changes)
        del self.doc["result"]["trajectory"]
        self.resumed_pieces = 0
        self.status, self.theory, self.trusted, self.findings = status, self.doc["theory"], True, ()
        self.checks, self.verdict = self.doc["checks"], self.doc["verdict"]
        self.thresholds = dict.fromkeys(self.checks, 1e-3)
        for name in ("diag_share", "diag_share_stderr", "diag_share_interval", "layer_block_share"):
            setattr(self, name, self.doc["result"][name])
        self.baselines = SimpleNamespace(wigner=0.1, ols_gaussian=0.2)
        self.layers = [SimpleNamespace(**layer) for layer in self.doc["result"]["layers"]]

    def to_result(self):
        return self.doc["result"]
