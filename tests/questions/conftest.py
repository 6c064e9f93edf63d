"""A network of the user's own, whose depth its spec gives."""

import pytest

from tests.questions.own_network import NET

# No tests: collected for doctests, modules of the corpus would be imported twice, and enter their cases twice.
collect_ignore_glob = ["check/corpus/*"]


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return "net.py:build(depth={depth})"
