"""Pickles and modules as an attacker makes them: calls of known and unknown names, bombs, and modules that lie."""

import io
import math
import struct
import zipfile
from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from fuzz.valid_files import WIDTH, torch_bytes

PROTOCOL = b"\x80\x02"
RUNS = ("posix system", "os system", "builtins eval", "builtins exec", "subprocess Popen", "os mkdir", "shutil rmtree")
LEADS_OUT = (
    *("torch.hub load", "torch load", "torch.nn.functional torch.os.system", "torch.nn.modules.module torch.load"),
    *(
        "builtins getattr",
        "operator attrgetter",
        "functools partial",
        "numpy load",
        "pathlib Path.unlink",
        "types FunctionType",
    ),
    *(
        "torch.serialization load",
        "torch.storage _load_from_bytes",
        "torch.utils.data.dataset open",
        "importlib import_module",
    ),
)
KNOWN = (
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_qtensor"),
    *("torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_nested_tensor", "torch._utils _rebuild_parameter"),
    *("torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_wrapper_subclass"),
    *("torch._utils _rebuild_device_tensor_from_numpy", "torch._tensor _rebuild_from_type_v2", "torch Size"),
    *("torch FloatTensor", "torch Tensor", "torch.storage UntypedStorage", "torch FloatStorage", "torch device"),
    *("torch.nn.modules.linear Linear", "torch.nn.modules.conv Conv2d", "torch.nn.modules.sparse Embedding"),
    *("torch.nn.modules.container Sequential", "torch.nn.modules.rnn LSTM", "torch.nn.parameter Parameter"),
    *(
        "torch.nn.functional pad",
        "torch.nn.functional interpolate",
        "torch.nn.functional one_hot",
        "torch.nn.functional relu",
    ),
    *("collections OrderedDict", "collections Counter", "collections defaultdict", "collections deque"),
    *("builtins set", "builtins bytearray", "builtins complex", "builtins frozenset", "builtins bytes", "builtins int"),
    *("_codecs encode", "argparse Namespace", "datetime datetime", "datetime timedelta", "pathlib PosixPath"),
    *("numpy.core.multiarray _reconstruct", "numpy._core.multiarray scalar", "numpy._core.numeric _frombuffer"),
    *("numpy ndarray", "numpy dtype", "torch.torch_version TorchVersion", "torch.serialization _get_layout"),
)


def crafted(rng: Random, marker: str) -> tuple[str, bytes]:
    """A file: its name and content. If anything in it runs, `marker` is made."""
    kind = rng.choice((_calls, _calls, _calls, _bomb, _lying_module, _lying_module, _lying_module, _tensor))
    content = kind(rng, marker)
    if content.startswith(b"PK"):
        return "crafted.pt", content
    return ("crafted.pt", zipped(content)) if rng.random() < 0.6 else ("crafted.pkl", content)


def zipped(pickled: bytes) -> bytes:
    """A file like those of torch.save around a pickle; storages 0 and 1 are there."""
    with zipfile.ZipFile(io.BytesIO(torch_bytes((torch.ones(4), torch.zeros(9))))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, pickled if name.endswith("data.pkl") else content)
        return stream.getvalue()


def name(text: str) -> bytes:
    return b"c" + "\n".join(text.split(" ")).encode() + b"\n"


def number(value: int) -> bytes:
    return (
        b"J" + struct.pack("<i", value)
        if abs(value) < 2**31
        else b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)
    )


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def storage(rng: Random) -> bytes:
    kind = rng.choice(("FloatStorage", "FloatStorage", "QInt8Storage", "LongStorage"))
    numel = rng.choice((4, 9, 0, 10**9, -1))
    return (
        b"(" + text("storage") + name(f"torch {kind}") + text(rng.choice("0012")) + text("cpu") + number(numel) + b"tQ"
    )


def value(rng: Random, depth: int = 0) -> bytes:
    """Opcodes of anything."""
    inner = lambda count: b"".join(value(rng, depth + 1) for _ in range(count))  # noqa: E731
    simple = (
        lambda: number(rng.choice((0, 1, 2, 40_000, 10**9, 10**12, -1))),
        lambda: text(rng.choice(("", "cpu", "latin1", "idna", "zlib", "O", "S99999", "f8", "weight", "os", "/etc"))),
        lambda: rng.choice((b"N", b"\x88", b"\x89", b"}", b"]", b")")),
        lambda: b"U\x08" + bytes(8),
        lambda: name(rng.choice(KNOWN)),
        lambda: storage(rng),
    )
    nested = (
        lambda: b"(" + inner(rng.randrange(4)) + b"t",
        lambda: b"](" + inner(rng.randrange(3)) + b"e",
        lambda: b"}(" + b"".join(text(key) + value(rng, depth + 1) for key in ("a", "b")) + b"u",
        lambda: call(rng, rng.choice(KNOWN), depth + 1),
    )
    return rng.choice(simple + (nested * 2 if depth < 3 else ()))()


def call(rng: Random, called: str, depth: int = 0) -> bytes:
    """A call, by one of the opcodes for it, and perhaps a state for the result."""
    arguments = b"".join(value(rng, depth + 1) for _ in range(rng.randrange(5)))
    result = {
        "reduce": name(called) + b"(" + arguments + b"tR",
        "new": name(called) + b"(" + arguments + b"t\x81",
        "inst": b"(" + arguments + b"i" + "\n".join(called.split(" ")).encode() + b"\n",
        "obj": b"(" + name(called) + arguments + b"o",
        "stack": b"".join(map(text, called.split(" "))) + b"\x93(" + arguments + b"tR",
    }[rng.choice(("reduce", "reduce", "new", "inst", "obj", "stack"))]
    return result + (value(rng, depth + 1) + b"b" if rng.random() < 0.3 else b"")


def _calls(rng: Random, marker: str) -> bytes:
    """Calls of what runs code, or of what is allowed with what it does not take, beside weights."""
    kind = rng.choice(("runs", "leads out", "known", "known", "known"))
    if kind == "runs":
        what = name(rng.choice(RUNS)) + text(f"touch {marker}") + b"\x85R"
        what = (
            what
            if rng.random() < 0.5
            else name("torch._tensor _rebuild_from_type_v2")
            + b"("
            + name(rng.choice(RUNS))
            + name("torch._tensor Tensor")
            + text(f"touch {marker}")
            + b"\x85}tR"
        )
    else:
        what = call(rng, rng.choice(LEADS_OUT if kind == "leads out" else KNOWN))
    return PROTOCOL + b"}" + text("weight") + what + b"s" + b"."


def _tensor(rng: Random, _: str) -> bytes:
    """Tensors of sizes, strides and offsets that lie outside of their storages, or far apart in them."""
    big = lambda: number(rng.choice((0, 1, 2, 3, -1, 10**5, 10**6, 2**40, 2**62)))  # noqa: E731
    axes = rng.randrange(4)
    size, stride = (b"(" + b"".join(big() for _ in range(axes)) + b"t" for _ in range(2))
    rebuilt = name("torch._utils _rebuild_tensor_v2") + b"(" + storage(rng) + big() + size + stride + b"\x89}tR"
    return (
        PROTOCOL + rng.choice((rebuilt, b"}" + text("0.weight") + rebuilt + b"s", rebuilt + rebuilt + b"\x86")) + b"."
    )


def _bomb(rng: Random, _: str) -> bytes:
    """Little that would unpack to much."""
    depth = rng.choice((30, 60, 2000, 100_000))
    huge = struct.pack("<Q", rng.choice((2**31, 2**33, 2**62)))
    bombs = (
        PROTOCOL + b"Nr" + struct.pack("<I", rng.choice((2**22, 2**28, 2**32 - 1))) + b".",
        PROTOCOL + b"Np" + str(rng.choice((10**7, 10**9, 10**30))).encode() + b"\n.",
        b"\x80\x04" + rng.choice((b"\x8e", b"\x8d", b"\x95", b"\x80\x05\x96")) + huge + b"N.",
        PROTOCOL + b"\x8b" + struct.pack("<i", rng.choice((2**31 - 1, 2**30, -1))) + b".",
        PROTOCOL + b"N" + b"2\x86" * depth + b".",
        PROTOCOL + b"}N" + b"2\x86" * depth + b"Ns.",
        PROTOCOL + b"]" + b"q\1]h\1ah\1a" * depth + b".",
        PROTOCOL + b"]" * depth + b"a" * (depth - 1) + b".",
        PROTOCOL + b"})" + b"\x85" * depth + b"Ns.",
        PROTOCOL + name("builtins bytearray") + number(10**10) + b"\x85R.",
        PROTOCOL + name("torch.nn.modules.linear Linear") + number(40_000) * 2 + rng.choice((b"\x86R.", b"\x86\x81.")),
        PROTOCOL + name("torch FloatTensor") + number(10**9) + b"\x85R.",
        b"\x80\x04" + b"\x8f" * depth + b"0" * (depth - 1) + b".",
    )
    return rng.choice(bombs)


LIES = (
    None,
    0,
    -1,
    3.5,
    math.nan,
    "x",
    "relu",
    (),
    (2, 3),
    [],
    {},
    {"a": 1},
    True,
    10**9,
    10**18,
    (10**6, 10**6),
    F.relu,
    F.pad,
)


def _lying_module(rng: Random, _: str) -> bytes:
    """A stock module whose attributes are anything: no constructor of it runs."""
    model = rng.choice(
        (
            lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2)),
            lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Upsample(scale_factor=2)),
            lambda: nn.LSTM(WIDTH, 2),
            lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            lambda: nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3), nn.Dropout(0.5), nn.Softmax(-1)),
        )
    )()
    layers = list(model.modules())
    for _ in range(rng.choice((1, 1, 3))):
        part = rng.choice(layers)
        own = vars(part)
        hidden = (
            "parameters",
            "forward",
            "state_dict",
            "modules",
            "train",
            "__call__",
            "__class__",
            "_call_impl",
            "to",
        )
        key = rng.choice((*own, *own, *hidden))
        lie = rng.choice(
            (*LIES, nn.Linear(1, 1), torch.ones(2), torch.ones(2, dtype=torch.int64), nn.Parameter(torch.ones(1)))
        )
        if isinstance(own.get(key), dict) and rng.random() < 0.6:
            own[key][rng.choice((*own[key], "weight", "0", 7))] = rng.choice((lie, model)) if key == "_modules" else lie
        else:
            own[key] = lie
        if rng.random() < 0.1:
            own.pop(rng.choice(list(own)))
    try:
        return torch_bytes(model)
    except Exception:  # it lies so well that it cannot be saved
        return torch_bytes(nn.Linear(1, 1))
