"""Files of other programs: known by their content, and answered with the command that works."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hessdiag.errors import LoadError
from hessdiag.problem.files import lines
from hessdiag.problem.files.folder import parsed

HEAD = 4096  # how much of a file is looked at

_REBUILD = "'train.py:build_model', a function that builds the network in PyTorch and copies the weights into it"
_MODELS = (
    (0, b"GGUF", "a GGUF model, weights for llama.cpp, mostly quantized", "hf:NAME, the model that it was made from"),
    (0, b"ggjt", "a GGML model, weights for llama.cpp", "hf:NAME, the model that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model", _REBUILD),
)
_IN_PYTHON = "--data 'FILE.py:f', where f() returns (x, y) as tensors"
_DATA = (
    (0, b"PAR1", "a Parquet table", "import pandas as pd, numpy as np; t = pd.read_parquet({path!r}).to_numpy()"),
    (0, b"ARROW1", "an Arrow table", "import pandas as pd, numpy as np; t = pd.read_feather({path!r}).to_numpy()"),
)
_ARCHIVES = (
    (0, b"BZh", "bzip2", "bunzip2"),
    (0, b"\xfd7zXZ\0", "xz", "unxz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z", "7z x"),
    (0, b"Rar!", "rar", "unrar x"),
    (257, b"ustar", "tar", "tar xf"),
)
_IMAGES = ((0, b"\x89PNG"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (8, b"WEBP"))
_SAVE = "; np.savez('batch.npz', x=t[:, :-1], y=t[:, -1])"


def answer(path: Path, head: bytes) -> LoadError | None:
    """What a file of another program is, and what to do instead; `None` for a file that is none of those.

    Args:
        path: The file.
        head: Its first `HEAD` bytes.

    >>> print(answer(Path("m.gguf"), b"GGUF"))
    m.gguf is a GGUF model, weights for llama.cpp, mostly quantized: hessdiag reads PyTorch.
      try: hf:NAME, the model that it was made from
    """
    for place, magic, what, hint in _MODELS:
        if head[place:].startswith(magic):
            return LoadError(f"{path} is {what}: hessdiag reads PyTorch.", hint)
    for place, magic, what, code in _DATA:
        if head[place:].startswith(magic):
            return _table(path, what, code.format(path=str(path)) + _SAVE)
    for place, magic, what, command in _ARCHIVES:
        if head[place:].startswith(magic):
            return LoadError(f"{path} is a {what} archive.", f"{command} {path}, then one of its files")
    if any(head[place:].startswith(magic) for place, magic in _IMAGES):
        return LoadError(f"{path} is an image, and no batch of arrays.", _IN_PYTHON)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if head.startswith(b"MATLAB "):
        load = f"import scipy.io, numpy as np; m = scipy.io.loadmat({str(path)!r})"
        return _table(path, "a MATLAB file", f"{load}; np.savez('batch.npz', x=m['x'], y=m['y'].ravel())")
    return _protobuf(path) or _text(path, head)


def _table(path: Path, what: str, code: str) -> LoadError:
    return LoadError(
        f"{path} is {what}, which is data, and is not read as it is.", f'python -c "{code}", then --data batch.npz'
    )


def _hdf5(path: Path) -> LoadError:
    with path.open("rb") as stream:
        start = stream.read(1 << 20)
    if b"keras" in start or b"layer_names" in start:
        return _keras(path)
    load = f"import h5py, numpy as np; f = h5py.File({str(path)!r})"
    return _table(path, "an HDF5 file", f"{load}; np.savez('batch.npz', x=f['x'][:256], y=f['y'][:256])")


def _keras(path: Path) -> LoadError:
    return LoadError(f"{path} holds a Keras model: hessdiag reads PyTorch.", _REBUILD)


def zipped(path: Path, names: Iterable[str]) -> LoadError:
    """What a zip file is that neither torch.save nor numpy.savez wrote."""
    if {"config.json", "metadata.json"} <= set(names):
        return _keras(path)
    return LoadError(
        f"{path} is a zip file, but neither of torch.save nor of numpy.savez.", f"unzip {path}, then one of its files"
    )


def _protobuf(path: Path) -> LoadError | None:
    """ONNX or TensorFlow, by the numbers and types of the message's fields."""
    with path.open("rb") as stream:
        fields = dict(itertools.islice(_fields(stream, path.stat().st_size), 1000))
    if fields.get(1) == 0 and fields.get(7) == 2 and None not in fields:  # ir_version, graph
        return LoadError(
            f"{path} is an ONNX model: a graph for inference, without derivatives.",
            "'train.py:build_model', the PyTorch model that it was exported from, with its --weights",
        )
    if path.name == "saved_model.pb" and fields.get(2) == 2 and None not in fields:
        return _saved_model(path)
    return None


def _saved_model(path: Path) -> LoadError:
    return LoadError(f"{path} is a TensorFlow SavedModel: hessdiag reads PyTorch.", _REBUILD)


def _fields(stream: IO[bytes], size: int) -> Iterator[tuple[int | None, int]]:
    """Number and wire type of each field of a protobuf message; number `None` where it is none."""
    while stream.tell() < size:
        tag = _varint(stream)
        number, wire = (tag or 0) >> 3, (tag or 0) & 7
        length = {0: 0, 1: 8, 5: 4}.get(wire, None if wire != 2 else _varint(stream))
        skipped = length is not None and (wire != 0 or _varint(stream) is not None)
        if not number or not skipped or stream.tell() + (length or 0) > size:
            yield None, wire
            return
        stream.seek(length or 0, 1)
        yield number, wire


def _varint(stream: IO[bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _text(path: Path, head: bytes) -> LoadError | None:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not a character that the end of the head cut
            return None
        text = head[: error.start].decode("utf-8-sig")
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        return LoadError(f"{path} is a web page, not the file that was to be downloaded.", "download the file itself")
    if start.startswith(("{", "[")):
        return _json(path)
    if lines.form_of(path) is not None:
        return LoadError(
            f"{path} is a table of text (CSV), which is data, and neither a model nor weights.", f"--data {path}"
        )
    return None


def _json(path: Path) -> LoadError | None:
    content = _parsed(path)
    if content is None:
        return None
    if path.name == "adapter_config.json":
        return adapter(path.parent)
    if isinstance(content, Mapping) and "model_type" in content:
        return model_folder(path.parent)
    return LoadError(f"{path} is JSON: text, and neither weights nor arrays.", _IN_PYTHON)


def _parsed(path: Path) -> Any:
    try:
        return parsed(path)
    except LoadError:
        return None


def folder(path: Path) -> LoadError | None:
    """What a folder is that is not read as weights; `None` if nothing is known of it."""
    names = {entry.name for entry in path.iterdir()}
    if "saved_model.pb" in names:
        return _saved_model(path)
    if "adapter_config.json" in names:
        return adapter(path)
    if "latest" in names or any(name.endswith("_optim_states.pt") for name in names):
        return LoadError(
            f"{path} is a DeepSpeed checkpoint, in which each process has its own part.",
            f"python {path}/zero_to_fp32.py {path} {path}/whole, then --weights {path}/whole",
        )
    if "model_index.json" in names:
        return LoadError(
            f"{path} is a diffusers pipeline of several models.",
            f"hf:{path}/NAME, or 'train.py:setup' with one of them",
        )
    return None


def model_folder(path: Path) -> LoadError | None:
    """That a folder holds a model of transformers or timm, by its config.json; `None` if it does not."""
    config = _parsed(path / "config.json")
    if not isinstance(config, Mapping):
        return None
    if isinstance(config.get("architecture"), str) and "model_type" not in config:
        weights = path / "model.safetensors"
        return LoadError(f"{path} holds a timm model.", f"timm:{config['architecture']} --weights {weights}")
    return LoadError(f"{path} is the folder of a Hugging Face model.", f"hf:{path}")


def adapter(path: Path) -> LoadError:
    """That a file or folder holds a PEFT adapter, with the name of the model that it belongs to."""
    config = _parsed((path if path.is_dir() else path.parent) / "adapter_config.json")
    base = config.get("base_model_name_or_path") if isinstance(config, Mapping) else None
    home = path if path.is_dir() else path.parent
    of = f" of {base}" if base else ""
    return LoadError(
        f"{path} is a PEFT adapter{of}: changes to a model, and no whole one.",
        f"hf:{home} as MODEL, which puts it on {base or 'the model that it belongs to'}",
    )


def is_adapter(names: Iterable[str]) -> bool:
    """Whether these are names of a PEFT adapter's weights."""
    return any(".lora_A." in name or ".lora_B." in name or ".lora_embedding_" in name for name in names)
