"""What is comparable, what is refused, and what a comparison says."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

import hessdiag
from hessdiag.errors import SpecError
from hessdiag.questions.blocks.estimates import mean_variance
from hessdiag.questions.compare import view
from hessdiag.questions.compare.measure import compared
from hessdiag.questions.documents import numbers_of
from hessdiag.questions.forward.norms import ratio_statistics
from hessdiag.statistics.differences import Known, difference
from tests.documents import document


def saved(folder, **docs):
    for name, doc in docs.items():
        (folder / f"{name}.json").write_text(json.dumps(doc))
    return [str(folder / f"{name}.json") for name in docs]


def rows_like(found, metric):
    return next(row for row in found.changes if row.metric == metric)


def of(name, problem=(), **result):
    doc = numbers_of(document(name, **result))
    doc["problem"] |= dict(problem)
    return doc


SAMPLED = {"diag_share_stderr": 0.003, "diag_share_interval": [0.068, 0.084]}


def test_different_commands_are_refused(hessdiag, tmp_path):
    a, b = saved(tmp_path, a=document("eigs"), b=document("spectrum"))
    run = hessdiag("compare", a, b)
    assert run.code == 2
    assert "a.json is a result of eigs, and b.json one of spectrum" in run.err
    assert "try: " in run.err


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ((), 2, "two results or more"),
        (("a.json",), 2, "two results or more"),
        (("a.json", "nothing.json"), 3, "nothing.json"),
        (("by.json", "a.json"), 2, "blocks"),
        (("c.json", "c.json"), 2, "not compared again"),
    ],
)
def test_what_cannot_be_compared_is_said(hessdiag, tmp_path, monkeypatch, files, code, said):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, a=document("blocks"), by=document("blocks-by"), c=document("compare"))
    run = hessdiag("compare", *files)
    assert (run.code, run.out) == (code, "")
    assert said in run.err


@pytest.mark.parametrize(
    ("problem", "result", "setting"),
    [
        ({"data_sha256": "0" * 64}, {}, "data"),
        ({"dtype": "float64"}, {}, "dtype"),
        ({"reduction": "sum"}, {}, "reduction"),
        ({"loss_definition": "cross-entropy"}, {}, "loss"),
        ({"train_mode": True}, {}, "training mode"),
        ({"layers_glob": "0.*"}, {}, "parameters chosen by --layers"),
        ({"parameters": 61}, {}, "parameters"),
        ({}, {"operator": "ggn"}, "operator"),
    ],
)
def test_what_else_differs_is_said_first(problem, result, setting):
    found = compared([of("spectrum-exact"), of("spectrum-exact", problem, **result)], ["a", "b"])
    assert not found.comparable
    assert [one.setting for one in found.settings if one.matters] == [setting]
    assert found.differences == 1
    assert setting in found.why
    assert found.findings[0].level == "warn"
    assert setting in found.findings[0].says


def test_layers_of_other_sizes_differ_where_their_sum_does_not():
    other = of("spectrum-exact")
    first, last = other["problem"]["layers"][0], other["problem"]["layers"][-1]
    first["parameters"], last["parameters"] = first["parameters"] + 5, last["parameters"] - 5
    found = compared([of("spectrum-exact"), other], ["a", "b"])
    assert [one.setting for one in found.settings] == ["layers"]


def test_effort_changes_errors_alone():
    found = compared([of("diag-share"), of("diag-share-rows")], ["a", "b"])
    assert found.comparable
    assert {one.setting for one in found.settings} == {"method"}
    assert rows_like(found, "diag_share").how == "estimates"


def test_other_weights_are_the_point_of_comparing():
    found = compared([of("eigs-exact"), of("eigs-exact", {"weights_sha256": "1" * 64}, largest=0.9)], ["a", "b"])
    assert found.comparable
    assert not found.repeated
    row = rows_like(found, "largest")
    assert (row.significant, row.p, row.how, row.way) == (True, None, "exact", "up")
    assert found.findings[0].says == (
        "Largest eigenvalue rose from 0.271 to 0.900 (exact); nothing else moved beyond its error."
    )


def test_exact_numbers_are_equal_up_to_the_rounding_of_their_dtype():
    value = of("eigs-exact")["result"]["largest"]
    for dtype, by, moved in (("float32", 3e-5, 0), ("float32", 3e-4, 1), ("float64", 3e-11, 0), ("float64", 3e-9, 1)):
        docs = [of("eigs-exact", {"dtype": dtype, "weights_sha256": name * 64}) for name in "12"]
        docs[1]["result"]["largest"] = value * (1 + by)
        assert compared(docs, ["a", "b"]).significant == moved, (dtype, by)


def test_a_bound_proves_only_what_it_bounds():
    bound = of("eigs", largest_is_bound=True)
    value = bound["result"]["largest"]
    for other, moved in ((value * 2, False), (value / 2, True)):
        doc = of("eigs", {"weights_sha256": "1" * 64}, largest=other)
        assert rows_like(compared([bound, doc], ["a", "b"]), "largest").significant is moved


def test_errors_that_are_student_s_already_are_compared_as_welch_does():
    """The width that one mean of few probes has is not that of a difference of two, and never counts twice."""
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 1, 12), rng.normal(0.8, 2, 7)
    docs = []
    for name, x in zip("12", samples, strict=True):
        error = float(np.sqrt(mean_variance(x[:, None])[0]))
        shares = {"between_layers": float(x.mean()), "between_layers_stderr": error, "probes": len(x)}
        docs.append(of("blocks", {"weights_sha256": name * 64}, **shares))
    row = rows_like(compared(docs, ["a", "b"]), "between_layers")
    assert row.p == pytest.approx(stats.ttest_ind(*samples, equal_var=False).pvalue, rel=1e-9)
    half = 1.96 * row.before_stderr
    assert row.before_interval == pytest.approx((row.before - half, row.before + half), rel=1e-3)


def test_a_median_s_error_is_wide_enough_for_a_difference_of_two():
    """Some sqrt(n) degrees of freedom each: the width that the error has for being few is Student's of both."""
    rng = np.random.default_rng(0)
    n, runs = 60, 1500
    found = [ratio_statistics(rng.normal(size=n)) for _ in range(2 * runs)]
    known = [Known(one.log_median, one.log_median, one.log_median, *[one.log_median_stderr] * 2) for one in found]
    p = np.array([difference(a, b).p for a, b in zip(known[::2], known[1::2], strict=True)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_shares_of_too_few_cases_take_no_part_of_the_level():
    """Not one network dead, or one of all: no way to part them is significant, so the others have the whole level."""
    docs = [of("forward", {"weights_sha256": name * 64}) for name in "12"]
    for doc in docs:
        doc["result"]["inits"] = doc["result"]["inits"][:1]
    for dead, weight in ((0, 1.0), (0.5, 0.95)):
        for doc, value in zip(docs, (-1.0, -0.95), strict=True):
            doc["result"]["inits"][0]["log_median_per_layer"] = value
            doc["result"]["inits"][0]["layers"][-1]["dead_fraction"] = dead
        found = compared(docs, ["a", "b"])
        row = rows_like(found, "inits.0.log_median_per_layer")
        assert row.p_adjusted == pytest.approx(row.p / weight)
        assert rows_like(found, "inits.0.layers.-1.dead_fraction").p_adjusted == pytest.approx(1)


def test_intervals_of_fractions_differ_only_where_they_are_apart():
    def fraction(low, high):
        return of(
            "spectrum", {"weights_sha256": str(low)}, negative_fraction=low, negative_fraction_interval=[low, high]
        )

    overlapping = compared([fraction(0.1, 0.3), fraction(0.25, 0.6)], ["a", "b"])
    assert not rows_like(overlapping, "negative_fraction").significant
    apart = rows_like(compared([fraction(0.1, 0.3), fraction(0.35, 0.6)], ["a", "b"]), "negative_fraction")
    assert (apart.significant, apart.p) == (True, None)


def test_the_same_seed_and_weights_give_the_same_numbers_or_it_is_said():
    same = compared([of("spectrum"), of("spectrum")], ["a", "b"])
    assert same.repeated
    assert not same.same_draws
    assert same.findings[0].level == "ok"
    other = compared([of("spectrum"), of("spectrum", trace=137.0)], ["a", "b"])
    assert other.repeated
    assert other.findings[0].level == "warn"
    assert "gave other numbers: trace" in other.findings[0].says


def test_a_repetition_that_lacks_a_number_is_not_called_the_same():
    a = of("eigs")
    found = compared([a, of("eigs", largest=None)], ["a", "b"])
    assert found.repeated
    assert any(one.says == "The same numbers, where both results have them." for one in found.findings)
    assert not any("made twice" in one.says for one in found.findings)
    assert any("made twice" in one.says for one in compared([a, a], ["a", "b"]).findings)


def test_estimates_from_the_same_random_numbers_are_said_to_be():
    docs = [of("spectrum"), of("spectrum", {"weights_sha256": "1" * 64}, trace=500.0, trace_interval=[480.0, 520.0])]
    assert compared(docs, ["a", "b"]).same_draws
    docs[1]["problem"]["seed"] = 7
    assert not compared(docs, ["a", "b"]).same_draws


def test_seeds_of_models_from_python_are_not_known():
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    asked = hessdiag.Problem(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)),
        data=[(x, x[:, :1])],
        loss="mse",
    )
    a, b = (hessdiag.diag_share(asked, rows=16, seed=seed) for seed in (1, 2))
    found = hessdiag.compare(a, b)
    assert not found.repeated
    assert not found.same_draws
    assert hessdiag.compare(a, a).repeated


def test_nothing_is_proven_by_a_run_whose_self_check_failed():
    found = compared([of("eigs-exact"), of("eigs-exact", trusted=False, largest=9.0)], ["a", "b"])
    assert found.significant == 0
    assert found.status == "inexact"
    assert {row.how for row in found.changes} == {"untold"}
    assert found.findings[0].level == "bad"


def test_numbers_without_a_value_are_missing_and_nan_is_no_number():
    found = compared(
        [of("diag-share"), of("diag-share", {"weights_sha256": "1"}, trace=None, diag_share=float("nan"))], ["a", "b"]
    )
    assert {row.metric for row in found.changes if row.how == "missing"} == {"trace", "diag_share"}
    assert rows_like(found, "diag_share").after is None


def test_better_and_worse_are_said_where_a_number_has_a_side():
    healthy, ill = of("check-healthy", confidence=0.0), of("check-healthy", {"weights_sha256": "1"}, confidence=0.9)
    found = compared([healthy, ill], ["a", "b"])
    assert (found.worse, found.better) == (1, 0)
    assert found.findings[0].level == "warn"
    assert (compared([ill, healthy], ["a", "b"]).worse, compared([ill, healthy], ["a", "b"]).better) == (0, 1)
    sharper = compared([of("eigs-exact"), of("eigs-exact", {"weights_sha256": "1"}, largest=9.0)], ["a", "b"])
    assert sharper.worse == 0  # a larger eigenvalue is neither


def test_gates(hessdiag, tmp_path):
    a, b = saved(tmp_path, a=document("check-healthy", confidence=0.0), b=document("check-healthy", confidence=0.9))
    assert hessdiag("compare", a, b).code == 0
    for gate in ("significant > 0", "worse > 0", "changes.0.change > 0.5"):
        run = hessdiag("compare", a, b, "--fail-if", gate)
        assert run.code == 1
        assert "gate: " in run.err
    assert hessdiag("compare", b, a, "--fail-if", "worse > 0").code == 0
    assert hessdiag("compare", a, b, "--fail-if", "differences > 0").code == 0
    failed = document("eigs-exact", trusted=False)
    assert hessdiag("compare", *saved(tmp_path, c=failed, d=document("eigs-exact"))).code == 4


def course(values, errors, labels):
    docs = []
    for index, (value, error) in enumerate(zip(values, errors, strict=True)):
        interval = [value - 1.96 * error, value + 1.96 * error]
        docs.append(
            of(
                "blocks",
                {"weights_sha256": str(index), "seed": index},
                norm=value,
                norm_stderr=error,
                norm_interval=interval,
            )
        )
    return compared(docs, labels)


def test_more_than_two_are_a_course_with_its_steps():
    found = course([1.0, 1.01, 2.0], [0.02] * 3, ["a", "b", "c"])
    assert [one.metric for one in found.courses] == ["norm", "between_layers", "residual_share"]
    assert found.courses[0].values == (1.0, 1.01, 2.0)
    norm = [step for step in found.steps if step.metric == "norm"]
    assert [(step.start, step.end, step.significant) for step in norm] == [("a", "b", False), ("b", "c", True)]
    assert rows_like(found, "norm").change == pytest.approx(1.0)
    assert "Frobenius norm: 1 of 2 steps beyond the errors, up." in [one.says for one in found.findings]


def test_a_course_that_returns_shows_steps_and_no_change():
    found = course([1.0, 2.0, 1.0], [0.02] * 3, ["a", "b", "c"])
    assert not rows_like(found, "norm").significant
    assert [step.significant for step in found.steps if step.metric == "norm"] == [True, True]


def test_results_are_ordered_by_step_when_asked(hessdiag, tmp_path):
    names = ["step10", "step9", "step100"]
    files = saved(tmp_path, **{name: document("blocks") for name in names})
    given = json.loads(hessdiag("compare", *files, "--json").out)["result"]["runs"]
    assert [run["label"] for run in given] == [f"{name}.json" for name in names]
    ordered = json.loads(hessdiag("compare", *files, "--json", "--by-step").out)["result"]["runs"]
    assert [run["label"] for run in ordered] == ["step9.json", "step10.json", "step100.json"]
    run = hessdiag("compare", *saved(tmp_path, a=document("blocks"), b=document("blocks")), "--by-step")
    assert run.code == 2
    assert "names tell no steps" in run.err


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name, r=document("eigs"))
    found = hessdiag.compare(tmp_path / "one/r.json", tmp_path / "two/r.json")
    assert [run.label for run in found.runs] == [str(tmp_path / name / "r.json") for name in ("one", "two")]


def test_lists_are_compared_by_name_not_by_place():
    other = of("forward", {"seed": 3})
    other["result"]["inits"].reverse()
    found = compared([of("forward"), other], ["a", "b"])
    assert all(row.change == 0 for row in found.changes if row.metric.endswith("log_median_per_layer"))


def test_a_refusal_names_both_files():
    with pytest.raises(SpecError, match=r"x\.json is a result of eigs, and y\.json one of chain"):
        compared([of("eigs"), of("chain")], ["x.json", "y.json"])


def test_reports_are_compared_section_by_section():
    docs = [of("report"), of("report", {"weights_sha256": "1" * 64})]
    held = {one["command"]: one["document"] for one in docs[1]["result"]["sections"]}
    held["eigs"]["result"]["largest"] *= 2
    found = compared(docs, ["a", "b"])
    assert {row.command for row in found.changes} == set(held)
    assert [(row.command, row.metric) for row in found.changes if row.significant] == [("eigs", "largest")]
    other = of("report")
    other["result"]["sections"] = [one for one in other["result"]["sections"] if one["command"] != "eigs"]
    less = compared([of("report"), other], ["a", "b"])
    assert {row.command for row in less.changes} == set(held) - {"eigs"}


def test_a_trajectory_names_its_first_and_its_last_model():
    docs = [of("eigs", {"weights": f"epoch{epoch}.pt"}) for epoch in (0, 1, 2)]
    subject = dict(view.view(compared(docs, ["a", "b", "c"])).subject)
    assert "epoch0.pt" in subject["model"]
    assert "epoch2.pt" in subject["model"]
    assert "epoch1.pt" not in subject["model"]
