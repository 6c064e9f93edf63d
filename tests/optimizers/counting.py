"""Counts what a step really does: closures, backward passes that reach parameters, and other calls of autograd."""

from contextlib import contextmanager
from types import SimpleNamespace

from torch.autograd import graph


@contextmanager
def calls(monkeypatch):
    """Every call of autograd's engine within the block, as `calls.made`."""
    counts, run = SimpleNamespace(made=0), graph._engine_run_backward

    def counted(*args, **options):
        counts.made += 1
        return run(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(graph, "_engine_run_backward", counted)
        patch.setattr("torch.autograd._engine_run_backward", counted)
        yield counts
