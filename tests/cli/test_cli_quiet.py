"""What other people's libraries print, warn and log: kept short on stderr, and off stdout."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from hessdiag.cli import quiet

SCRIPT = """
import logging, warnings
import torch
print("Files already downloaded and verified")
try:
    from tqdm.auto import tqdm
except ImportError:
    tqdm = lambda items, **_: items
class M(torch.nn.Linear):
    def forward(self, x):
        warnings.warn("targets are broadcast " + "x" * 300)
        warnings.warn("old", FutureWarning)
        logging.getLogger("library").warning("cache is cold")
        return super().forward(x)
def setup():
    for _ in tqdm(range(3), desc="loading"):
        pass
    return M(4, 2), (torch.randn(8, 4), torch.arange(8) % 2), "ce"
"""


def test_noise_of_a_script_does_not_reach_the_answer(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "hessdiag", "diag-share", "train.py:setup", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith('{\n  "schema"')
    assert done.stderr.count("\n") == 4, done.stderr
    printed, warned, logged, announced = done.stderr.splitlines()
    assert printed == "Files already downloaded and verified"
    assert warned == "warning: targets are broadcast ..."
    assert logged == "warning: cache is cold"
    assert announced.startswith("10 parameters")


def test_hugging_face_says_nothing(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=40, n_embd=4, n_layer=1, n_head=1, n_positions=16)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")  # special tokens beyond the vocabulary
    command = [sys.executable, "-m", "hessdiag", "spectrum", "hf:./gpt2", "--batch-size", "2", "--allow-inexact"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "loss     " in done.stdout
    assert "output" in done.stdout
    for word in ("transformers]", "Loading", "%|", "token_id", "loss_type", "Warning"):
        assert word not in done.stderr
    assert len(done.stderr.splitlines()) < 6, done.stderr


def test_what_the_environment_says_stands(monkeypatch, capsys):
    for name in (*quiet._ALWAYS, *quiet._BARS):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    show, last_resort = warnings.showwarning, logging.lastResort
    with quiet.third_parties():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
        assert os.environ["TQDM_DISABLE"] == "1"
        assert warnings.showwarning is show
    assert logging.lastResort is last_resort


def test_everything_is_put_back_and_said_once(monkeypatch, capsys):
    monkeypatch.setattr(sys, "warnoptions", [])
    last_resort, filters = logging.lastResort, list(warnings.filters)
    with quiet.third_parties():
        warnings.simplefilter("always", UserWarning)
        for _ in range(2):
            warnings.warn("two\nlines", stacklevel=1)
            warnings.warn("for developers", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: two lines\n"
    assert logging.lastResort is last_resort
    assert warnings.filters == filters
