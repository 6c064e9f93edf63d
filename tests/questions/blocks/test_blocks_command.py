import json

MODEL = "builtin:mlp(depth=3, width=4)"


def test_the_document_holds_what_scripts_rely_on(hessdiag):
    outcome = hessdiag("blocks", MODEL, "--json", "--no-progress")
    assert (outcome.code, outcome.err) == (0, "")
    doc = json.loads(outcome.out)
    assert (doc["command"], doc["status"]) == ("blocks", "ok")
    result = doc["result"]
    count = len(result["names"])
    for name in ("frobenius", "gauss_newton", "residual"):
        assert [len(row) for row in result[name]] == [count] * count
    assert len(result["trace"]) == count == 3
    assert (result["method"], result["probes"]) == ("exact", 0)


def test_probes_and_seed_reach_the_measurement(hessdiag):
    first, again, other = (
        json.loads(hessdiag("blocks", MODEL, "--probes", 3, "--seed", seed, "--json").out)["result"]
        for seed in (1, 1, 2)
    )
    assert (first["method"], first["probes"]) == ("probes", 3)
    assert first["norm"] == again["norm"] != other["norm"]


def test_the_cost_is_said_before_it_is_paid(hessdiag):
    assert (
        "products of the Hessian and Gauss-Newton matrix, an estimate" in hessdiag("blocks", MODEL, "--probes", 2).err
    )
    assert "the whole Hessian and Gauss-Newton matrix" in hessdiag("blocks", MODEL).err


def test_one_probe_is_a_usage_error(hessdiag):
    assert hessdiag("blocks", MODEL, "--probes", 1).code == 2


def test_gates_and_saved_pages(hessdiag, tmp_path):
    assert hessdiag("blocks", MODEL, "--fail-if", "residual_share > 2", "-o", "r.json").code == 0
    assert hessdiag("blocks", MODEL, "--fail-if", "between_layers >= 0").code == 1
    assert hessdiag("blocks", MODEL, "--baseline", "r.json").code == 0
    assert hessdiag("report", "r.json", "-o", "r.html").code == 0
    assert (tmp_path / "r.html").read_text("utf-8").count("<img") == 3


def test_an_objective_has_one_map(hessdiag, tmp_path):
    (tmp_path / "own.py").write_text("def f(model, batch):\n    return model(batch[0]).square().mean()\n")
    outcome = hessdiag("blocks", MODEL, "--objective", "own.py:f", "-o", "r.html", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["result"]["gauss_newton"] is None
    assert (tmp_path / "r.html").read_text("utf-8").count("<img") == 1


def test_several_models_are_refused(hessdiag):
    assert hessdiag("blocks", MODEL, MODEL).code == 2
