"""Mutated files and crafted pickles: each ends within seconds and its memory, in an answer or one line, and runs nothing.

HESSDIAG_FUZZ=long HESSDIAG_FUZZ_SEED=7 pytest -n 0 -s tests/fuzz/test_fuzz_files.py
"""

import collections
import contextlib
import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from fuzz.crafted_pickles import crafted
from fuzz.length import LONG, SEED
from fuzz.mutate_files import mutated
from fuzz.valid_files import MODEL, corpus
from hessdiag.errors import HessdiagError
from hessdiag.problem.files.checkpoint import read

CRAFTED, MUTATED = (250, 1000) if LONG else (50, 70)
MEASURED = 4  # one in so many goes through the whole command
SECONDS = 30
MEMORY = 256 * 10**6 + (128 << 20)  # what the smallest file may unpack to, and what a command takes by itself
PER_BYTE = 32
ROLES = ("model", "data", "weights")
CODES = (0, 2, 3, 4)
LINES = re.compile(r"[^\n]+(\n  try: [^\n]*)?\n?")
ROOT = Path(__file__).parents[2]


class Worker:
    """A process that loads files; a new one follows one that died or hung."""

    def __init__(self, folder):
        self.folder, self.process = folder, None

    def __call__(self, case):
        if self.process is None:
            paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
            quiet = {
                "PYTHONPATH": paths,
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONWARNINGS": "ignore",
            }
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "tests/fuzz/trial.py"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder, env=os.environ | quiet,
            )  # fmt: skip
            self.process.stdin.write(json.dumps(case | {"path": "nothing"}) + "\n")  # imports are no file's doing
            self.process.stdin.flush()
            self.process.stdout.readline()
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], 2 * SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        how = "died" if ready else "hung"
        self.close()
        return {"code": None, "said": how, "seconds": 2 * SECONDS, "memory": 0, "done": []}

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


pytestmark = pytest.mark.filterwarnings("ignore")  # of odd zips and layouts


@pytest.fixture
def worker(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    worker = Worker(folder)
    yield worker
    worker.close()


def faults(answer, size, folder, path):
    """What an answer has that none may have."""
    said = answer["said"]
    if answer["code"] not in CODES:
        yield f"code {answer['code']}"
    if "internal error" in said or "Traceback" in said:
        yield "internal error"
    if answer["code"] in (2, 3) and not LINES.fullmatch(said):
        yield "more than a line"
    if answer["seconds"] > SECONDS:
        yield f"{answer['seconds']:.0f} s"
    if answer["memory"] > MEMORY + PER_BYTE * size:
        yield f"{answer['memory'] / 1e6:.0f} MB for {size} bytes"
    if answer["done"]:
        yield f"did {answer['done']}"
    if (left := sorted(os.listdir(folder))) != [path.name]:
        yield f"left {left}"


def run(worker, cases):
    """Load each file in each role, and tell what went wrong, with the figures of all."""
    wrong, codes, most = [], collections.Counter(), {"seconds": 0.0, "memory": 0.0}
    for index, (name, content) in enumerate(cases):
        path = worker.folder / name
        path.write_bytes(content)
        for role in ROLES:
            case = {"path": str(path), "role": role, "model": MODEL, "measure": index % MEASURED == 0}
            answer = worker(case)
            codes[answer["code"]] += 1
            most = {key: max(value, answer[key]) for key, value in most.items()}
            wrong += [
                f"{index} {name} as {role}: {fault}: {answer['said'][-900:]}"
                for fault in faults(answer, len(content), worker.folder, path)
            ]
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    print(
        f"\nseed {SEED}: {sum(codes.values())} loads, codes {dict(codes)}, slowest {most['seconds']:.1f} s, most {most['memory'] / 1e6:.0f} MB"
    )
    return wrong


def test_mutated_files(worker):
    rng, files = Random(f"mutated {SEED}"), corpus()
    wrong = run(worker, (mutated(rng, files) for _ in range(MUTATED)))
    assert not wrong, f"{len(wrong)} of seed {SEED}:\n" + "\n".join(wrong[:20])


def test_crafted_pickles(worker, tmp_path):
    rng, marker = Random(f"crafted {SEED}"), tmp_path / "ran"
    wrong = run(worker, (crafted(rng, str(marker)) for _ in range(CRAFTED)))
    assert not wrong, f"{len(wrong)} of seed {SEED}:\n" + "\n".join(wrong[:20])
    assert not marker.exists()


def test_the_corpus_is_valid(tmp_path):
    """Without mutation all is read but text, and modules as torch saved them before it wrote zips."""
    refused = set()
    for name, content in corpus().items():
        (tmp_path / name).write_bytes(content)
        try:
            read(tmp_path / name)
        except HessdiagError:
            refused.add(name)
    old = {f"legacy-{name}.pt" for name in ("model", "attention", "lstm")}
    assert refused == {"table.csv", "config.json", "page.html", "model.safetensors.index.json", *old}
