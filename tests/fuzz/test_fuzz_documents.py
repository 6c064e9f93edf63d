"""Mutated documents end in an answer or in one line, in every format and as a baseline."""

import random
import re

import pytest

from fuzz.length import LONG, SEED
from fuzz.mutate_documents import DOCUMENTS, ESCAPE, SCRIPT, mutated
from hessdiag.cli import main

RUNS = 500 if LONG else 60
PER_PAGE = 1 if LONG else 6  # pages have figures, which take most of the time
LINE = re.compile(r"error: [^\n]*\n(  try: [^\n]*\n)?")
CAUGHT = re.compile(r"\b[A-Z]\w*Error\b")


def said(capfd, *args):
    capfd.readouterr()
    code = main.run([*args, "--no-progress"])
    out, err = capfd.readouterr()
    assert "internal error" not in err, err
    assert "Traceback" not in err, err
    assert not CAUGHT.search(err), err  # no exception of the code that lays out
    return code, out, err


@pytest.mark.parametrize("chunk", range(10))
def test_reports_of_mutated_documents(chunk, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    rng = random.Random(f"{SEED} {chunk}")
    for index in range(RUNS // 10):
        (tmp_path / "r.json").write_text(mutated(rng), "utf-8")
        for form in ("text", "markdown", "json", "html")[: 3 if index % PER_PAGE else 4]:
            code, out, err = said(capfd, "report", "r.json", "--format", form)
            where = f"seed {SEED}, chunk {chunk}, document {index}, {form}: {err}"
            assert code in (0, 3, 4, 130), where  # the last two as the document's status says
            if code == 3:
                assert out == "", where
                assert LINE.fullmatch(err), where
            if form == "html":
                assert SCRIPT not in out, where
            if form != "json":
                assert ESCAPE not in out + err, where


@pytest.mark.parametrize("chunk", range(2))
def test_mutated_baselines(chunk, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(f"baseline {SEED} {chunk}")
    for index in range(RUNS // 2):
        (tmp_path / "r.json").write_text(mutated(rng), "utf-8")
        now = rng.choice(DOCUMENTS)
        code, _, err = said(capfd, "report", str(now), "--format", "json", "--baseline", "r.json")
        known = (130,) if "interrupted" in now.stem else (0, 1, 2, 3)
        assert code in (*known, 2, 3), f"seed {SEED}, chunk {chunk}, document {index}: {err}"
