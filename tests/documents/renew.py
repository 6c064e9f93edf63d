"""Write the documents in this folder anew: `python -m tests.documents.renew [NAME...]`, where none is named all of them.

Then look at `git diff`, and at the texts in tests/questions/golden, which `python -m tests.questions.test_pages` writes.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ALWAYS = ("--json", "--no-progress")

# Name of a document -> the command line that wrote it.
COMMANDS = {
    "check": "check networks.py:dead --optimizer sgd --lr 0.1 --try",
    "check-healthy": "check model.pt",
    "diag-share": "diag-share model.pt",
    "diag-share-one": "diag-share one.pt",
    "diag-share-rows": "diag-share model.pt --rows 20",
    "diag-share-trajectory": "diag-share step0.pt step1.pt step2.pt --rows 24",
    "eigs": "eigs 'builtin:mlp(width=12, depth=3)' --lowest 2 --highest 3",
    "diag-share-metric": "diag-share model.pt --metric adam",
    "eigs-metric": "eigs model.pt --lowest 2 --highest 3 --metric 'sgd(lr=0.1, momentum=0.9)'",
    "eigs-exact": "eigs model.pt --lowest 2 --highest 3",
    "spectrum": "spectrum 'builtin:mlp(width=24, depth=3)' --probes 3 --steps 15",
    "spectrum-exact": "spectrum model.pt",
    "spectrum-metric": "spectrum model.pt --metric 'rmsprop(lr=1e-3)'",
    "bounds-metric": "bounds model.pt --metric 'adam(lr=0.01, weight_decay=0.1)'",
    "spectrum-ggn": "spectrum model.pt --operator ggn",
    "bounds": "bounds model.pt",
    "bounds-sketch": "bounds builtin:lenet",
    "blocks": "blocks model.pt --probes 8",
    "blocks-exact": "blocks model.pt",
    "blocks-objective": "blocks model.pt --objective networks.py:squares",
    "blocks-one": "blocks one.pt",
    "blocks-by": "blocks model.pt --by layer",
    "blocks-by-neuron": "blocks model.pt --by neuron --probes 6",
    "blocks-by-sampled": "blocks 'builtin:mlp(width=24, depth=3)' --by tensor --probes 4",
    "trust-radius": "trust-radius model.pt",
    "trust-radius-kinks": "trust-radius 'builtin:mlp(depth=24, width=12)' --norm uniform",
    "sharpness": "sharpness model.pt --optimizer 'adam(lr=0.01)'",
    "sharpness-edge": "sharpness model.pt --optimizer 'sgd(momentum=0.9)' --lr 0.9",
    "sharpness-muon": "sharpness 'builtin:mlp(width=12, depth=3)' --optimizer 'muon(lr=0.01)'",
    "precondition": "precondition model.pt",
    "precondition-lanczos": "precondition 'builtin:mlp(width=30, depth=3)' --steps 40 --probes 2",
    "forward": "forward --depth 8 --width 6 --seeds 200",
    "forward-solve": "forward --depth 3 --width 6 --seeds 60 --init lecun --init he_normal --init orthogonal --solve median",
    "forward-layers": "forward --depth 6 --width 6 --seeds 60 --init xavier_normal --init he_normal --solve median --per-layer",
    "forward-model": "forward model.pt --seeds 20 --solve median",
    "vanishing": "vanishing --depth 16 --width 6 --seeds 40 --hessian-seeds 6",
    "vanishing-shallow": "vanishing --depth 2 --width 6 --seeds 20 --hessian-seeds 3 --init lecun",
    "vanishing-model": "vanishing 'builtin:fcn(depth={depth}, channels=3)' --depth 4 --seeds 3 --hessian-seeds 2",
    "transfer": "transfer 'builtin:mlp(width={width}, depth=3, in_features=8, out_features=4)' --widths 8,32,128 --seeds 4",
    "transfer-mup": "transfer \"builtin:gpt(width={width}, layers=1, heads=2, vocabulary=16, context=8, parametrization='mup')\""
    " --widths 8,16 --seeds 2 --optimizer adam",
    "report": "report model.pt --preset quick --budget none",
    "report-run": "report run.jsonl",
    "chain": "chain --seeds 2000",
    "chain-one": "chain --length 1 --distribution normal --seeds 200",
    "escape": "escape 'builtin:deep_mlp(depth=12, width=8, samples=64)' --init lecun --seeds 2 --optimizer 'sgd(lr=0.1)'"
    " --optimizer 'rmsprop(lr=1e-3)' --optimizer tr-rmsprop --budget 90 --landscape",
    "escape-score": "escape builtin:rosenbrock --seeds 1",
    "compare": "compare before.json after.json",
    "compare-course": "compare blocks-0.json blocks-1.json blocks-2.json --by-step",
}
# What some of them compare: files, and the command lines that write them.
FIRST = {
    "compare": {"before.json": "diag-share step0.pt --rows 40", "after.json": "diag-share step1.pt --rows 40"},
    "compare-course": {f"blocks-{step}.json": f"blocks step{step}.pt --probes 40 --seed {step}" for step in range(3)},
}
# Of these a part was done when they were ended, after so many seconds; how much differs from time to time.
INTERRUPTED = {
    "forward-interrupted": (12, "forward --depth 4 --width 100 --seeds 200000 --init lecun --init he_normal"),
    "vanishing-interrupted": (12, "vanishing --depth 32 --width 24 --seeds 30000 --hessian-seeds 20"),
    "chain-interrupted": (12, "chain --length 400 --seeds 6000000"),
}
LINES = COMMANDS | {name: line for name, (_, line) in INTERRUPTED.items()}


def argv(name: str) -> list[str]:
    """The words of the command that wrote a document."""
    return ["hessdiag", *shlex.split(LINES[name]), *ALWAYS]


def write(name: str, folder: Path) -> None:
    """Run a command, and keep its document."""
    from tests.documents import networks
    from tests.preloaded import ROOT

    command = [sys.executable, "-m", *argv(name)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if name == "report-run":
        networks.watched(folder / "run.jsonl")
    for file, line in FIRST.get(name, {}).items():
        before = [sys.executable, "-m", "hessdiag", *shlex.split(line), *ALWAYS, "-o", file]
        subprocess.run(before, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE) as process:
        if name in INTERRUPTED:
            time.sleep(INTERRUPTED[name][0])
            process.terminate()
        out, _ = process.communicate()
    assert process.returncode in ((143,) if name in INTERRUPTED else (0, 4)), (name, process.returncode)
    text = json.dumps(json.loads(out), ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text + "\n", "utf-8")


def main() -> None:
    """Write those that are named."""
    from tests.documents import networks

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(networks.__file__, folder)
        networks.save(Path(folder))
        for name in sys.argv[1:] or LINES:
            write(name, Path(folder))
            print(name, (HERE / f"{name}.json").stat().st_size)


if __name__ == "__main__":
    main()
