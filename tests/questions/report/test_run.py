"""The log of a Monitor as a result: what is whole is read, what is said follows from the looks, and all forms show it."""

import json
import subprocess
import sys

import pytest
import torch

import hessdiag as package
from hessdiag.errors import LoadError, SpecError
from hessdiag.questions.documents import is_document, is_log
from hessdiag.questions.pages import render, view_of
from hessdiag.report.view import Heat, Lines
from tests.documents import document

FORMS = ("text", "markdown", "html", "json")
HEADER = {
    "schema": "hessdiag-run/1",
    "started": "2026-01-01T00:00:00+00:00",
    "problem": {"model": "Net", "parameters": 8, "device": "cuda:0", "dtype": "float32", "loss": "ce"},
    "optimizer": {"kind": "SGD", "settings": {"lr": 0.1}},
    "every": 10,
    "budget": "5%",
    "quantities": ["loss", "gradient_norms", "lambda_max", "sharpness"],
    "seed": 0,
    "versions": {"hessdiag": "0"},
}


def ratio(value, **more):
    return {"sharpness": {"value": value, "stderr": 0.001, "converged": True, "threshold": 20.0, **more}}


def top(value, **more):
    return {"lambda_max": {"value": value, "stderr": 0.01 * abs(value), "converged": True, **more}}


def looks(*readings):
    return [{"step": 10 * (index + 1), "readings": one} for index, one in enumerate(readings)]


@pytest.fixture
def run(tmp_path):
    def read(*lines, end="", **header):
        path = tmp_path / "run.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in (HEADER | header, *lines)]
        path.write_text("\n".join(texts) + "\n" + end, "utf-8")
        return package.load(path)

    return read


def says(found):
    return [finding.says for finding in found.findings]


def test_what_a_monitor_saw_is_what_is_read(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    problem = package.Problem(model, data=[(torch.randn(16, 4), torch.randint(3, (16,)))], loss="ce")
    path = tmp_path / "run.jsonl"
    with package.Monitor(problem, 2, None, optimizer=optimizer, log=path) as monitor:
        for _ in range(6):
            optimizer.zero_grad()
            monitor.step()
    found = package.load(path)
    assert isinstance(found, package.MonitoredRun)
    assert list(found.records) == monitor.records
    assert found.problem.parameters == 15
    values = [record.value("lambda_max") for record in monitor.records]
    assert (found.lambda_max.first, found.lambda_max.last) == (values[0], values[-1])
    assert (found.lambda_max.measured, found.lambda_max.at, found.looks) == (3, 6, 3)
    assert found.trace is None
    assert any("did not log negative_curvature, trace, diag_share" in one for one in says(found))


def test_at_the_edge(run):
    found = run(*looks(*map(ratio, (0.3, 0.5, 0.95, 1.02, 0.98, 1.05))))
    assert says(found)[0] == "At the edge of stability from step 30 on: the ratio was 0.950 to 1.05."
    assert found.sharpness.last == 1.05


def test_beyond_the_edge_and_back(run):
    found = run(*looks(*map(ratio, (0.5, 1.4, 1.2, 1.0, 0.7))))
    assert says(found)[0] == ("At the edge of stability or beyond it from step 20 to 40: the ratio was 1.00 to 1.40.")
    assert found.findings[0].level == "note"
    assert run(*looks(*map(ratio, (0.5, 1.2, 1.3, 1.4)))).findings[0].level == "warn"


def test_single_looks_beyond_the_edge(run):
    found = run(*looks(*map(ratio, (0.5, 1.4, 0.5, 1.3))))
    assert says(found)[0] == "Beyond the edge of stability at steps 20, 40: up to 1.40 times the threshold."
    assert found.findings[0].level == "warn"  # the last look is


def test_a_ratio_within_its_error_of_the_limit_is_not_beyond(run):
    assert says(run(*looks(ratio(0.5), ratio(1.11, stderr=0.05))))[0].startswith("The ratio came to 1.11, at step 20")


def test_stable(run):
    found = run(*looks(*map(ratio, (0.2, 0.5, 0.4))))
    assert says(found)[0] == "Stable at every look: the ratio was at most 0.500, at step 20."
    assert found.findings[0].level == "ok"


def test_ratios_that_did_not_converge_prove_no_stability(run):
    found = run(*looks(ratio(0.2), ratio(0.5, converged=False, bound="lower", stderr=None)))
    assert found.findings[0].level == "note"
    assert "seen at most 0.500" in says(found)[0]
    assert "1 of them only from below" in found.findings[0].because
    assert found.sharpness.unconverged == 1
    assert "≥ 0.5" in render(found, "text")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((3.0, 10.0, 40.0, 41.0, 39.0, 40.0, 40.0, 41.0, 40.0), "rose from 3.00 to 40.0, then stayed within 10 % of 40.0 from step 70 on"),
        ((3.0, 40.0, 5.0), "rose from 3.00 to 40.0 at step 20, and fell to 5.00"),
        ((40.0, 20.0, 10.0), "fell from 40.0 to 10.0"),
        ((40.0, 42.0, 38.0), "stayed within 38.0 to 42.0"),
        ((2.0, 1.0, 2.1), "went from 2.00 to 2.10, within 1.00 to 2.10"),
        ((-1.0, 2.0), "went from -1.00 to 2.00"),
        ((7.0,), "was 7.00 at step 10, the only look at it"),
    ],
)  # fmt: skip
def test_where_the_largest_eigenvalue_went(run, values, said):
    assert f"lambda_max {said}." in says(run(*looks(*map(top, values))))


def test_a_gradient_that_vanishes_in_one_layer(run):
    norms = [{"gradient_norms": {"value": 1.0, "layers": {"one": 1.0, "two": small}}} for small in (0.5, 1e-6)]
    assert any(one.startswith("The gradient of two has vanished") for one in says(run(*looks(*norms))))
    assert not any("vanished" in one for one in says(run(*looks(norms[0]))))
    charts = [block for block in view_of(run(*looks(*norms))).blocks if isinstance(block, Heat)]
    assert charts[0].matrix == ((1.0, 1.0), (0.5, 1e-6))


def test_a_loss_that_is_no_number_is_said_first(run):
    bad = {"step": 20, "readings": {}, "failed": {"loss": "the loss is nan", "lambda_max": "the loss is nan"}}
    found = run(*looks({"loss": {"value": 2.0}} | ratio(0.5)), bad)
    assert says(found)[0] == "From step 20 on there is no loss; at step 10 it was 2.00."
    assert found.findings[0].level == "bad"
    assert any(one.startswith("lambda_max failed at 1 look, the last time at step 20") for one in says(found))


def test_estimates_are_judged_by_their_errors(run):
    def trace(value):
        return {"trace": {"value": value, "stderr": 1.0}}

    assert any("shows no change" in one for one in says(run(*looks(trace(10.0), trace(12.0)))))
    assert any("The trace rose" in one for one in says(run(*looks(trace(10.0), trace(14.0)))))


def test_looks_that_were_left_out_are_counted_and_shown(run):
    skipped = {"step": 30, "readings": {}, "skipped": "a look takes about 2 s", "share": 0.05}
    short = {"step": 20, "readings": {"loss": {"value": 1.0}}, "left_out": {"lambda_max": "5 products take 2 s"}}
    found = run(*looks({"loss": {"value": 2.0}}), short, skipped)
    assert (found.looks, found.skipped, found.share) == (2, 1, 0.05)
    assert any("1 of 3 looks left out, and 1 look without what takes products" in one for one in says(found))
    text = render(found, "text")
    assert "a look takes about 2 s" in text
    assert "5 products take 2 s" in text


def test_a_run_without_looks_is_said(run):
    assert says(run())[0] == "The log has no look in which anything was measured."
    assert all(render(run({"step": 10, "skipped": "no time"}), form) for form in FORMS)


def test_of_a_damaged_file_what_is_whole_is_drawn(run):
    good = looks(top(1.0), top(2.0))
    found = run(
        good[0], "not JSON", '{"step": "x"}', "[1]", good[1], end='{"step": 30, "readings": {"lambda_max": {"va'
    )
    assert [record.step for record in found.records] == [10, 20]
    assert len(found.unread) == 4
    assert found.unread[-1] == "the last line is cut off"
    assert any("line 3 is not what a monitor writes" in one for one in says(found))
    many = run(*["x"] * 9)
    assert "4 more lines are not, either" in many.unread


def test_a_line_that_is_cut_within_a_character_is_read(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(json.dumps(HEADER).encode() + b'\n{"step": 10, "skipped": "\xc3')
    assert package.load(path).unread == ("the last line is cut off",)


def test_a_run_that_went_back_is_drawn_as_it_went_on(run):
    again = [{"resumed": {"versions": {}}}, {"step": 20, "readings": top(5.0)}]
    found = run(*looks(top(1.0), top(2.0), top(3.0)), *again)
    assert [(record.step, record.value("lambda_max")) for record in found.records] == [(10, 1.0), (20, 5.0)]
    assert (found.replaced, found.resumed) == (2, (30,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": "hessdiag-run/1", "started": "2026', "first line, the header, is not whole"),
        ('{"schema": "hessdiag-run/99"}\n', 'schema "hessdiag-run/99"'),
        ('{"schema": "hessdiag-run/1"}\n', "`problem`|`result"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(LoadError, match=message):
        package.load(path)


def test_words_for_what_is_no_number(run):
    found = run(*looks({"loss": {"value": "NaN"}}, {"loss": {"value": 1.0}}))
    assert (found.loss.first, found.loss.measured) == (1.0, 1)
    assert all(render(found, form) for form in FORMS)
    assert '"NaN"' in render(found, "json")


def test_files_are_told_apart(tmp_path, run):
    run()
    assert is_log(tmp_path / "run.jsonl")
    assert is_document("missing.jsonl")
    assert not is_log("missing.jsonl")
    (tmp_path / "r.json").write_text(json.dumps(document("report-run")))
    assert not is_log(tmp_path / "r.json")


def test_long_runs_are_thinned_and_keep_their_peaks(run):
    values = [1.0] * 5000
    values[1234] = 99.0
    found = run(*looks(*map(top, values)))
    (chart,) = (
        block for block in view_of(found).blocks if isinstance(block, Lines) and block.series[0].name == "lambda_max"
    )
    assert len(chart.x) <= 400
    assert (chart.x[0], chart.x[-1]) == (10.0, 50000.0)
    assert max(chart.series[0].values) == 99.0
    assert len(chart.table.rows) <= 40
    assert "of each stretch the one with the largest value" in chart.caption
    assert len(render(found, "html")) < 3_000_000


def test_the_command(hessdiag, tmp_path):
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, (HEADER, *looks(ratio(0.5), ratio(1.4))))) + "\n")
    assert "Beyond the edge of stability at step 20" in hessdiag("report", "run.jsonl").out
    assert hessdiag("report", "run.jsonl", "-o", "run.html").code == 0
    first = hessdiag("report", "run.jsonl", "--json")
    (tmp_path / "r.json").write_text(first.out, "utf-8")
    assert hessdiag("report", "r.json", "--json").out == first.out
    assert json.loads(first.out)["provenance"]["argv"] == ["hessdiag", "report", "run.jsonl", "--json"]
    assert hessdiag("report", "run.jsonl", "--fail-if", "sharpness.last > 1").code == 1
    assert hessdiag("report", "run.jsonl", "--fail-if", "sharpness.last > 2").code == 0
    assert hessdiag("report", "run.jsonl", "--fail-if", "trace.last > 1").code == 1  # was not measured
    assert hessdiag("report", "run.jsonl", "--fail-if", "sharpnes.last > 1").code == 2
    assert hessdiag("report", "run.jsonl", "--baseline", "r.json").code == 0
    assert "no such file" in hessdiag("report", "missing.jsonl").err.lower()


def test_logs_are_not_compared(tmp_path, run):
    run()
    with pytest.raises(SpecError, match="logs are not compared"):
        package.compare(tmp_path / "run.jsonl", tmp_path / "run.jsonl")


def test_no_torch_is_needed(tmp_path, run):
    run(*looks(ratio(0.5)))
    code = (
        "import sys; sys.modules['torch'] = None; import hessdiag; print(hessdiag.load('run.jsonl')._repr_html_()[:7])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("<iframe"), done.stderr
