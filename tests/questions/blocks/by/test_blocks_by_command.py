"""`hessdiag blocks --by`: its document beside that of plain `blocks`, gates, baselines, costs and going on."""

import json

import pytest

from hessdiag.questions import documents
from hessdiag.questions.blocks.by.result import BlocksBy
from hessdiag.questions.blocks.result import Blocks

MODEL = "builtin:mlp(depth=3, width=4)"
WIDE = "builtin:mlp(depth=2, width=24)"
KEYS = {
    "partition", "frobenius_share", "absolute_share", "relative_error", "lambda_max", "lambda_min", "top_cosine",
    "heterogeneity",
}  # fmt: skip


def test_the_document_holds_what_scripts_rely_on(hessdiag):
    outcome = hessdiag("blocks", MODEL, "--by", "layer", "--json", "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    doc = json.loads(outcome.out)
    assert (doc["command"], doc["status"], doc["result"]["partition"]) == ("blocks", "ok", "layer")
    assert set(doc["result"]) >= KEYS
    assert set(doc["result"]["lambda_max"]) >= {"hessian", "blocks"}
    assert type(documents.read(doc)) is BlocksBy
    plain = json.loads(hessdiag("blocks", MODEL, "--json").out)
    assert type(documents.read(plain)) is Blocks
    assert "partition" not in plain["result"]


def test_gates_baselines_and_saved_pages(hessdiag, tmp_path):
    by = ("blocks", MODEL, "--by", "neuron")
    assert hessdiag(*by, "--fail-if", "absolute_share > 1.1", "-o", "r.json").code == 0
    assert hessdiag(*by, "--fail-if", "lambda_max.hessian > 0").code == 1
    assert hessdiag(*by, "--baseline", "r.json").code == 0
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert (tmp_path / "r.html").read_text("utf-8").count("<img") >= 2
    plain = hessdiag("blocks", MODEL, "--baseline", "r.json")
    assert plain.code == 2
    assert "another kind of result of blocks" in plain.err


def test_a_moved_headline_violates_a_baseline(hessdiag, tmp_path):
    assert hessdiag("blocks", MODEL, "--by", "layer", "-o", "r.json").code == 0
    doc = json.loads((tmp_path / "r.json").read_text())
    doc["result"]["heterogeneity"] *= 2
    (tmp_path / "other.json").write_text(json.dumps(doc))
    outcome = hessdiag("blocks", MODEL, "--by", "layer", "--baseline", "other.json")
    assert outcome.code == 1
    assert "heterogeneity went from" in outcome.err


def test_words_that_are_not_known_are_refused_with_those_that_are(hessdiag):
    outcome = hessdiag("blocks", MODEL, "--by", "lyer")
    assert outcome.code == 2
    assert "--by layer" in outcome.err


def test_the_cost_is_said_before_it_is_paid_and_bounds_it(hessdiag):
    outcome = hessdiag("blocks", WIDE, "--by", "neuron", "--probes", 2, "--json")
    assert "1,152 parameters in 48 blocks: at most" in outcome.err
    said = int(outcome.err.split("at most ")[1].split(" products")[0].replace(",", ""))
    spent = json.loads(outcome.out)["result"]["hvps"]
    assert 2 * 32 + 8 < spent <= said < 2000


@pytest.mark.parametrize("stage", ["norms._sample", "row_shares._numbers", "block_ends._by_rows"])
def test_an_interrupted_run_goes_on_where_it_stopped(hessdiag, monkeypatch, stage):
    """To the bit, with what was finished taken up."""
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_EVERY", 0.0)
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_SHARE", 1e9)
    monkeypatch.setattr("hessdiag.questions.common.operators.together", lambda operator, most: 16)
    command = ("blocks", MODEL, "--by", "tensor", "--probes", 4, "--json")
    home, _, name = f"hessdiag.questions.blocks.by.{stage}".rpartition(".")
    module = __import__(home, fromlist=[name])
    real, calls = getattr(module, name), []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    whole = json.loads(hessdiag(*command).out)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        assert hessdiag(*command, "--resume", "kept").code == 130
    again = json.loads(hessdiag(*command, "--resume", "kept").out)
    assert again["provenance"]["resumed_pieces"] > 0
    assert {key: again[key] for key in again if key != "provenance"} == {
        key: whole[key] for key in whole if key != "provenance"
    }
    assert hessdiag(*command, "--resume", "kept", "--seed", 1).code == 2
    assert hessdiag("blocks", MODEL, "--probes", 4, "--resume", "kept").code == 2
