"""Runs of the same truth are seldom called different, and three standard errors are found: real runs, fewer than in the benchmark."""

import pytest

from tests.benchmarks.comparisons import CASES, rates


@pytest.mark.parametrize(("name", "pairs"), [("forward, one init", 100), ("diag-share --rows 60", 40)])
def test_rates(name, pairs):
    """Few of such samples are beyond these bounds by chance: at 5 % of those alike, 75 % of those apart."""
    most, least = {100: (0.12, 0.6), 40: (0.175, 0.6)}[pairs]
    found = rates(CASES[name](), pairs)
    assert found["alike"] <= most
    assert found["apart"] >= least
    assert abs(found["errors apart"] - 3.0) < 4 * found["its error"]
