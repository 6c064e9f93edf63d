"""`hessdiag eigs`: options to requests, the archive of vectors, and exit codes; on a real, small network."""

import json

import numpy as np
import pytest

MODEL = "builtin:mlp(depth=2,width=4)"


def test_answer_and_archive_agree(hessdiag, tmp_path):
    outcome = hessdiag("eigs", MODEL, "--lowest", 2, "--highest", 3, "--save", "v.npz", "--json")
    assert outcome.code == 0
    result = json.loads(outcome.out)["result"]
    assert "Wrote v.npz" in outcome.err
    with np.load(tmp_path / "v.npz", allow_pickle=False) as saved:
        pairs = [*result["lowest"], *result["highest"]]
        assert saved["values"].tolist() == [pair["eigenvalue"] for pair in pairs]
        assert saved["vectors"].shape == (32, 5)
        assert int(saved["lowest"]) == 2
        assert saved["layers"].tolist() == result["layers"]
        parts = np.split(np.square(saved["vectors"]), saved["layer_stops"][:-1])
        weights = np.array([part.sum(0) for part in parts]).T
        assert weights == pytest.approx(np.array([pair["layer_weights"] for pair in pairs]))


def test_an_archive_is_not_overwritten_unasked(hessdiag, tmp_path):
    (tmp_path / "v.npz").write_text("mine")
    refused = hessdiag("eigs", MODEL, "--save", "v.npz")
    assert refused.code == 2
    assert "--force" in refused.err
    assert (tmp_path / "v.npz").read_text() == "mine"
    assert hessdiag("eigs", MODEL, "--save", "v.npz", "--force").code == 0
    assert (tmp_path / "v.npz").read_bytes()[:2] == b"PK"
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"], "no part is left behind"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--save", "v.pt"], 2, "v.npz"),
        (["--save", "no/such/v.npz"], 2, "does not exist"),
        (["--lowest", "0", "--highest", "0"], 2, "asks for no eigenpair"),
        (["--tol", "-1"], 2, "relative residual"),
        (["--max-basis", "3"], 2, "--max-basis 30"),
        (["--fail-if", "largest>1e-9"], 1, "largest ="),
        (["--fail-if", "highest.4.residual>1"], 0, ""),
    ],
)
def test_exit_codes(hessdiag, args, code, says):
    outcome = hessdiag("eigs", MODEL, *args)
    assert outcome.code == code
    assert says in outcome.err


def test_what_did_not_converge_ends_in_4(hessdiag):
    big = "builtin:mlp(depth=4,width=32)"  # too large for the exact spectrum
    outcome = hessdiag("eigs", big, "--max-products", 20)
    assert outcome.code == 4
    assert "NOT TRUSTWORTHY" in outcome.out
    assert hessdiag("eigs", big, "--max-products", 20, "--allow-inexact").code == 0
