"""Command lines over the whole grammar of click: valid, nearly valid, hostile. Work that is asked for is tiny."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from hessdiag.cli import main

BIG = ("99999999999999999999", "1000000000000", "1e308")
ODD = (
    "",
    " ",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "x",
    "1_000",
    "²",
    "0x10",
    "+3",
    "1e400",
    "None",
    "--",
    "\t",
    "=",
)
TEXTS = (
    "\x1b[31m", "\x00", "a\x00b", "\udcff", "\ud800", "\u202e", "x" * 300, "y" * 5000, "'", '"', "$(touch outside)", "`id`",
    "../outside", "/dev/null/x", "%s%n", "{}", "{depth}", "a\nb", "-", "~", "~root/x", "C:\\x", "\\\\host\\x", "🙂", "*", "[", "(", "#", ":", "@",
)  # fmt: skip
# Larger values of these are larger work that is asked for, and done.
SMALL = {
    "depth": 3,
    "width": 3,
    "length": 4,
    "seeds": 4,
    "hessian_seeds": 3,
    "batches": 2,
    "batch": 6,
    "batch_size": 4,
    "probes": 5,
}
LITERALS = (
    "3",
    "2",
    "-1",
    "0",
    "True",
    "None",
    "'a'",
    "[1]",
    "1e3",
    "x",
    "",
    "2**9",
    "__import__('os')",
    "(" * 90,
    "'a'*9",
)
WORDS = {
    "loss": ("ce", "mse", "bce", "nll", "output", "mes", "cross_entropy", "losses.py:squared", "losses.py:nope", "losses.py:broken"),
    "objective": ("losses.py:objective", "losses.py:squared", "losses.py:", "losses.py:text"),
    "data": ("batch.npz", "batch.npz#x,y", "batch.npz#z", "train.py:loader", "empty.npz", "damaged.pt", "nothing.npz", "r.json", "builtin:digits", "t.csv", "t.csv#y(shuffle=False)", "./pics/(size=8)", "t.csv(size=8)"),
    "weights": ("w.pt", "w.pt#a", "damaged.pt", "nothing.pt", "batch.npz", "r.json"),
    "metric": ("adam", "sgd(lr=0.1)", "muon", "adam(", "nope", "rmsprop(eps=1e-3)", "w.pt#optimizer", "damaged.pt#optimizer", "train.py:build"),
    "state": ("w.pt#optimizer", "damaged.pt#optimizer", "nothing.pt", "r.json", "folder", "w.pt"),
    "device": ("cpu", "auto", "cuda", "cuda:9", "mps", "gpu", "cpu:1"),
    "layers": ("*", "0.*", "*.weight", "nothing", "[", "[!a"),
    "fail_if": ("trace>0", "smallest < -1e9", "diag_share<1e-9", "largest=3", "x>1", "inits.0>1", ">", "a" * 400 + ">1"),
    "baseline": ("r.json", "nothing.json", "batch.npz", "/dev/null", "folder", "damaged.pt"),
    "max_change": ("10%", "0", "0.5", "-1%", "x", "1e9%"),
    "file": ("o.html", "o.json", "o.md", "o.txt", "o", "kept.json", "folder", "no/such/o.json", "link.json", "loop.json", "/dev/null", "/dev/full", "x" * 260 + ".md"),
    "save": ("v.npz", "v.safetensors", "kept.json", "folder/v.npz", "/dev/full", "no/v.npz"),
    "resume": ("pieces", "folder", "kept.json", "no/such", "/dev/null", "kept.json/x"),
    "config": ("hessdiag.toml", "bad.toml", "nothing.toml", "folder", "/dev/null", "batch.npz"),
    "init": ("he_normal", "orthogonal", "Lecun", "he"),
    "solve": ("median", "rms", "mean"), "scale": ("1", "0", "1.7", "1e-300", "1e308", "-2", "nan"), "tol": ("1e-3", "0", "1e-30", "-1", "nan", "2"),
    "time_budget": ("1", "2", "1", "0", "-1", "nan", "x"), "optimizers": ("adam", "sgd(lr=0.1)", "tr-rmsprop", "muon", "adam(", "nope", "lodo"), "optimizer": ("adam", "sgd(momentum=0.9)", "muon", "lion", "adam(", "nope", "lodo", "train.py:nope", "w.pt#a"), "budget": ("5", "20", "0", "x", "2s"),
    "widths": ("2,4", "3", "4,2,2", "x"), "depths": ("1,2", "2,1", "3", "0"), "tolerance": ("0.2", "0", "-1", "nan"),
    "damping": ("1e-2", "0", "1", "2", "nan", "-1", "1e-300"),
    "results": ("r.json", "s.json", "r.json", "s.json", "nothing.json", "batch.npz", "folder", "bad.json", "m.pt", "/dev/null"),
}  # fmt: skip
QUICK = ("ls", "env", "init", "completion")
MODELS = ("builtin:mlp", "builtin:chain", "builtin:mlp(", "builtin:nope", "builtin:", "train.py:build", "train.py:setup", "train.py:nope",
          "train.py:breaks", "train.py:exits", "train.py:number", "train.py", "nothing.py:f", "m.pt", "m.pt#a", "w.pt", "damaged.pt", "nothing.pt",
          "batch.npz", "r.json", "folder", "mlp", "json:loads", "os:getcwd", "no.such:f", "py:train:build", "file:m.pt", "file:", "torchvision:nope",
          "bad.json", "nothing.json", "timm:", "hf:", "hf: ", "zip:x", "/dev/null", "/dev/full", "link.json")  # fmt: skip
KEYWORDS = ("depth", "width", "activation", "init", "bias", "length", "in_features", "nope", "class")

TRAIN = """
import sys
import torch
from torch import nn
from hessdiag.nets import ACTIVATIONS
def build(depth=2, width=3):
    return nn.Sequential(*[layer for _ in range(min(int(depth), 4)) for layer in (nn.Linear(3, 3), nn.Tanh())])
def setup():
    return build(), [(torch.randn(4, 3), torch.randn(4, 3))], "mse"
def loader():
    return [(torch.randn(4, 3), torch.randn(4, 3))] * 2
def breaks():
    raise RuntimeError("the user's own\\x1b[31m error")
def exits():
    sys.exit(1)
number = 3
"""
LOSSES = """
def squared(output, target):
    return ((output - target) ** 2).mean()
def objective(model, batch):
    return model(batch[0]).square().mean()
def broken(output, target):
    return output
text = "no function"
"""


def prepare(folder: Path) -> None:
    """Write what the command lines name: files that are right, wrong and damaged."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    torch.save(model, folder / "m.pt")
    torch.save({"a": model.state_dict(), "b": model.state_dict()}, folder / "w.pt")
    (folder / "damaged.pt").write_bytes((folder / "m.pt").read_bytes()[:700])
    rng = np.random.default_rng(0)
    np.savez(folder / "batch.npz", x=rng.normal(size=(5, 3)).astype("f4"), y=np.array([0, 1, 0, 1, 1]))
    np.savez(folder / "empty.npz")
    (folder / "t.csv").write_text("a,b,c,y\n" + "".join(f"{k},{k % 3}.5,-1,{k % 2}\n" for k in range(9)))
    for label in ("a", "b"):
        (folder / "pics" / label).mkdir(parents=True)
        (folder / "pics" / label / "0.pgm").write_bytes(b"P5 4 4 255\n" + rng.bytes(16))
    (folder / "train.py").write_text(TRAIN)
    (folder / "losses.py").write_text(LOSSES)
    (folder / "hessdiag.toml").write_text(
        '[problem]\nseed = 3\nmodel = "m.pt"\ndata = "batch.npz"\n[eigs]\nlowest = 1\n'
    )
    (folder / "bad.toml").write_text("[eigs]\nlowset = 1\n")
    (folder / "bad.json").write_text('{"schema": "hessdiag/1"}')
    (folder / "kept.json").write_text("mine")
    (folder / "folder").mkdir()
    (folder / "link.json").symlink_to("kept.json")
    (folder / "loop.json").symlink_to("loop.json")
    document = Path(__file__).parent.parent / "documents"
    (folder / "r.json").write_text(min(document.glob("*.json"), key=lambda path: path.stat().st_size).read_text())
    (folder / "s.json").write_text((document / "vanishing.json").read_text())
    assert json.loads((folder / "r.json").read_text())["schema"] == "hessdiag/1"


def mutated(rng: random.Random, text: str) -> str:
    """The same text with a slip of the hand, or worse."""
    at = rng.randint(0, len(text))
    return rng.choice(
        (
            text[:at] + text[at + 1 :],
            text[:at] + rng.choice(TEXTS) + text[at:],
            text + rng.choice(TEXTS),
            text[:at] + text[at : at + 3] * 2 + text[at + 3 :],
            text if text.startswith("/") else text.upper(),  # not another folder outside
            text.replace("-", "_"),
            text[::-1],
            rng.choice(TEXTS),
        )
    )


def spec(rng: random.Random) -> str:
    """A MODEL by its grammar."""
    head = rng.choice(MODELS if rng.random() < 0.6 else ("m.pt", "train.py:build", "train.py:setup", "builtin:mlp"))
    if rng.random() < 0.3 or head in ("builtin:mlp", "builtin:chain"):
        known = {"builtin:mlp": ("depth=2", "width=3"), "builtin:chain": ("length=3",)}.get(head, ())
        more = [f"{rng.choice(KEYWORDS)}={rng.choice(LITERALS)}" for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        head += f"({', '.join([*known, *more])})"
    return head if rng.random() < 0.85 else mutated(rng, head)


def value(rng: random.Random, option: click.Parameter) -> str:
    """A value for an option: mostly one that it takes."""
    name = option.name or ""
    if rng.random() < 0.06:
        return rng.choice(ODD + TEXTS)
    if name in WORDS:
        chosen = rng.choice(WORDS[name])
    elif isinstance(option.type, click.Choice):
        chosen = str(rng.choice(list(option.type.choices)))
    elif name in SMALL:
        chosen = str(rng.randint(2 if "seeds" in name else 1, SMALL[name]))
    else:
        chosen = rng.choice((*map(str, range(6)), *(BIG if rng.random() < 0.2 else ())))
    return chosen if rng.random() < 0.95 else mutated(rng, chosen)


def generated(rng: random.Random) -> list[str]:
    """A command line."""
    name = rng.choice(list(main.COMMANDS) + 2 * [name for name in main.COMMANDS if name not in QUICK])
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    args = [name if rng.random() < 0.98 else mutated(rng, name)]
    options = [option for option in command.params if isinstance(option, click.Option)]
    taken = {"depth", "width", "length", "seeds", "hessian_seeds", "time_budget"} & {option.name for option in options}
    models = name == "forward" and rng.random() < 0.5
    # What is large by default is asked for small.
    taken |= {"budget"} if name == "report" else set()
    if models:
        taken -= {"depth", "width"}
    chosen = [option for option in options if option.name in taken]
    chosen += rng.sample(options, min(len(options), rng.choice((0, 0, 1, 1, 2, 3, 5))))
    for option in chosen:
        if option.name in ("traceback", "trust_code"):
            continue
        flag = rng.choice(option.opts + option.secondary_opts)
        words = [flag] if option.is_flag else [flag, value(rng, option)]
        if len(words) == 2 and flag.startswith("--") and rng.random() < 0.2:
            words = [f"{flag}={words[1]}"]
        args += words
    for argument in command.params:
        if not isinstance(argument, click.Argument):
            continue
        if argument.name in WORDS:
            count = rng.choice((1, 2, 2, 2, 3)) if argument.nargs == -1 else 1
            args += [rng.choice(WORDS[argument.name]) for _ in range(count)]
        elif isinstance(argument.type, click.Choice):
            args.append(str(rng.choice(list(argument.type.choices))))
        elif argument.name == "model":
            args += [_growing(rng)] * rng.choice((0, 0, 1))
        elif name == "forward" and not models:
            continue
        else:
            args += [spec(rng) for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))]
    if rng.random() < 0.12:
        _slip(rng, args)
    return args


def _growing(rng: random.Random) -> str:
    """A MODEL for `vanishing` or `transfer`."""
    return rng.choice(
        (
            "train.py:build(depth={depth})",
            "train.py:build(width={width})",
            "builtin:mlp(depth={depth}, width=3)",
            spec(rng),
            "m.pt",
            "{depth}",
        )
    )


def _slip(rng: random.Random, args: list[str]) -> None:
    """Drop, repeat, exchange or add a word."""
    at = rng.randrange(len(args))
    slips: tuple[Callable[[], object], ...] = (
        lambda: args.pop(at),
        lambda: args.insert(at, args[at]),
        lambda: args.reverse(),
        lambda: args.insert(at, rng.choice(TEXTS + ODD)),
        lambda: args.insert(at, rng.choice(("--nope", "-x", "--jsn", "--help", "--version", "-h", "--outptu=x"))),
    )
    rng.choice(slips)()
