"""A network of the user's own, whose depth its spec gives."""

import pytest

from tests.questions.own_network import NET


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    return "net.py:build(depth={depth})"
