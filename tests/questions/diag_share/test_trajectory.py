"""Changes along checkpoints are called significant as often as they may be by chance, and no more often."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.steps import step_numbers
from hessdiag.questions.diag_share import verdict as verdict_of_one
from hessdiag.questions.diag_share.measure import diag_share
from hessdiag.questions.diag_share.trajectory import (
    Compared,
    change,
    diag_share_along,
    findings,
    verdict,
)
from hessdiag.questions.documents import loads, read
from hessdiag.statistics.differences import holm
from tests.questions.diag_share.share_problems import wide
from tests.reference import quadratic


def points(shares, stderr=0.0, labels=None):
    labels = labels or [f"step{10 * index}.pt" for index in range(len(shares))]
    return [Compared(label, share, stderr) for label, share in zip(labels, shares, strict=True)]


def test_without_a_change_one_in_twenty_trajectories_shows_one():
    rng = np.random.default_rng(0)
    found = [change(points(rng.normal(0.1, 0.005, 6).tolist(), 0.005)) for _ in range(2000)]
    for share in (
        np.mean([one.whole.significant for one in found]),
        np.mean([one.trend.significant for one in found]),
        np.mean([any(step.significant for step in one.steps) for one in found]),
    ):
        assert 0.025 < share < 0.065  # 5 %, and 2000 trajectories know it to half a percent


def test_a_change_is_held_against_both_errors():
    found = change([Compared("a", 0.10, 0.003), Compared("b", 0.12, 0.004)])
    assert found.whole.stderr == pytest.approx(0.005, rel=1e-12)
    assert found.whole.p == pytest.approx(math.erfc(4 / math.sqrt(2)), rel=1e-9)
    assert found.whole.significant
    assert found.steps[0].p == found.whole.p, "one step needs no correction"
    assert found.trend is None


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_exact_shares_differ_or_do_not():
    alike, other = change(points([0.1, 0.1, 0.1])), change(points([0.1, 0.1, 0.2]))
    assert (alike.whole.significant, alike.trend.significant) == (False, False)
    assert [step.significant for step in other.steps] == [False, True]
    assert other.trend.significant


def test_a_trend_is_per_step_where_labels_number_them():
    shares = [0.1 * math.exp(0.002 * step) for step in (0, 10, 20, 40)]
    numbered = change(points(shares, 1e-4, ["step0.pt", "step10.pt", "step20.pt", "step40.pt"])).trend
    assert (numbered.along, numbered.slope) == ("step", pytest.approx(0.002, rel=1e-9))
    assert change(points(shares, 1e-4, list("abcd"))).trend.along == "checkpoint"
    assert step_numbers(["run2/step5.pt", "run2/step50.pt"]) == [5, 50]
    assert step_numbers(["5.pt", "3.pt"]) is None


def test_what_is_not_trusted_is_not_judged():
    (said,) = findings([Compared("a", 0.1, 0.0), Compared("b", 0.3, 0.0, trusted=False)])
    assert (said.level, "b" in said.because) == ("warn", True)
    assert change([Compared("a", None, 0.0), Compared("b", 0.3, 0.0)]) is None


def test_what_is_bad_of_an_earlier_checkpoint_comes_first_and_names_it():
    bad, note = Finding("bad", "Dead.", "", ""), Finding("note", "Alive.", "", "")
    said = verdict(points([0.1, 0.2]), [("first", [bad, note]), ("last", [note])])
    assert [finding.says for finding in said if finding.says.endswith(("Dead.", "Alive."))] == [
        "first: Dead.",
        "last: Alive.",
    ]
    assert said[0].says == "first: Dead."


def test_one_result_of_several_is_the_last_with_what_changes():
    diagonals = [diag_share(quadratic(torch.ones(3, 3).double() + k * torch.eye(3).double())) for k in (0, 1, 3)]
    shares = [1 / 3, 2 / 4, 4 / 6]
    first, last = diagonals[0], diagonals[-1]
    labels = ["step0", "step1", "step3"]
    found = diag_share_along(zip(labels, diagonals, strict=True))
    assert [(point.label, point.diag_share) for point in found.trajectory] == [
        (label, pytest.approx(share)) for label, share in zip(labels, shares, strict=True)
    ]
    assert (found.diag_share, found.layers, found.status) == (last.diag_share, last.layers, "ok")
    assert (found.change.whole.difference, found.change.trend.along) == (pytest.approx(1 / 3), "step")
    assert "more diagonal along the checkpoints" in " ".join(finding.says for finding in found.findings)
    failed = replace(diagonals[1], status="inexact", trusted=False)
    found = diag_share_along([("a", first), ("b", failed), ("c", last)])
    assert (found.status, len(found.change.steps)) == ("inexact", 1)
    assert diag_share_along([("a", first)]) is first
    with pytest.raises(SpecError, match="no checkpoint"):
        diag_share_along([])


def test_saved_results_say_what_measured_ones_do():
    shares = [diag_share(wide(), rows=rows, seed=1) for rows in (40, 60, 200)]
    saved = [read(loads(share.to_json())) for share in shares]
    assert saved == shares
    assert tuple(verdict_of_one.findings(saved[0])) == shares[0].findings
    along, again = (diag_share_along(zip("abc", found, strict=True)) for found in (shares, saved))
    assert again == along
    assert read(loads(along.to_json())) == along
    assert along.change.trend is not None
