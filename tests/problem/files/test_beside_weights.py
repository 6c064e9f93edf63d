"""What trainers save beside weights loads as data; the same structures around code are refused, and run nothing."""

import argparse
import collections
import contextlib
import datetime
import io
import os
import pathlib
import pickle
import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.errors import UntrustedFileError
from hessdiag.problem.files import plain_pickle
from hessdiag.problem.files.checkpoint import read

WHEN = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))


def history():
    result = collections.defaultdict(list)
    result["loss"].append(0.5)
    return result


BESIDE = {
    "numpy float": (np.float64(0.91), 0.91),
    "numpy int": (np.int32(-7), -7),
    "numpy bool": (np.bool_(True), True),
    "numpy text": (np.str_("best"), "best"),
    "array": (np.arange(3.0), [0.0, 1.0, 2.0]),
    "array of bytes": (np.arange(4, dtype=np.uint8).reshape(2, 2), [[0, 1], [2, 3]]),
    "array by columns": (np.asfortranarray(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]]),
    "array of text": (np.array(["cat", "dog"]), ["cat", "dog"]),
    "big-endian array": (np.arange(2, dtype=">f4"), [0.0, 1.0]),
    "random state": (list(random.Random(0).getstate()), list(random.Random(0).getstate())),
    "path": (pathlib.PurePosixPath("runs/a.pt"), pathlib.PurePosixPath("runs/a.pt")),
    "path here": (pathlib.Path("runs") / "a.pt", pathlib.PurePosixPath("runs/a.pt")),
    "windows path": (pathlib.PureWindowsPath("C:/runs"), pathlib.PureWindowsPath("C:/runs")),
    "ordered": (collections.OrderedDict(a=1), {"a": 1}),
    "default": (history(), {"loss": [0.5]}),
    "counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "deque": (collections.deque([1, 2], maxlen=5), [1, 2]),
    "frozenset": (frozenset({1, 2}), {1, 2}),
    "set": ({1, 2}, {1, 2}),
    "bytes": (b"\x80raw", b"\x80raw"),
    "date": (WHEN, WHEN),
    "day": (WHEN.date(), WHEN.date()),
    "span": (datetime.timedelta(3, 4), datetime.timedelta(3, 4)),
    "version": (torch.__version__, str(torch.__version__)),
    "size": (torch.Size([2, 3]), (2, 3)),
    "device": (torch.device("cpu"), torch.device("cpu")),
    "dtype": (torch.bfloat16, torch.bfloat16),
    "complex": (1j, 1j),
    "long": (2**100, 2**100),
}
WRITERS = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", BESIDE)
def test_it_loads_beside_weights(kind, writer, tmp_path):
    value, expected = BESIDE[kind]
    state = nn.Linear(3, 2).state_dict()
    WRITERS[writer]({"model": state, "meta": {"inner": [value, value]}}, tmp_path / "c.pt")
    content = read(tmp_path / "c.pt")
    for found in content["meta"]["inner"]:
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == expected
    assert torch.equal(content["model"]["weight"], state["weight"])


@pytest.mark.parametrize("kind", [argparse.Namespace, types.SimpleNamespace])
def test_namespaces(kind, tmp_path):
    torch.save({"args": kind(lr=0.1, out=pathlib.Path("a"), kinds=[float, np.float32])}, tmp_path / "c.pt")
    args = read(tmp_path / "c.pt")["args"]
    assert args.lr == 0.1
    assert isinstance(args, argparse.Namespace)


class Marker:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def with_factory(marker):
    """A defaultdict whose factory is an object of the file's."""
    result = history()
    result.default_factory = marker
    marker.__class__.__call__ = lambda self: None
    return result


TWINS = {
    "beside": lambda marker: marker,
    "array of objects": lambda marker: np.array([marker], dtype=object),
    "object as a scalar": lambda marker: np.array([marker, 1.0], dtype=object)[:1],
    "namespace": lambda marker: argparse.Namespace(lr=marker),
    "factory": with_factory,
    "deque": lambda marker: collections.deque([marker]),
    "ordered": lambda marker: collections.OrderedDict(a=marker),
    "optimizer": lambda marker: {"state": {0: {"step": marker}}, "param_groups": []},
    "key": lambda marker: {("a", 1): [marker]},
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("twin", TWINS)
def test_twins_that_run_code_are_refused(twin, writer, tmp_path):
    marker = tmp_path / "ran"
    content = {"model": nn.Linear(3, 2).state_dict(), "meta": TWINS[twin](Marker(marker))}
    WRITERS[writer](content, tmp_path / "c.pt")
    with pytest.raises(UntrustedFileError, match=r"(posix|nt)\.mkdir"):
        read(tmp_path / "c.pt")
    assert not marker.exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert marker.exists()


def test_an_array_of_objects_is_refused_by_what_it_is(tmp_path):
    torch.save({"model": nn.Linear(3, 2).state_dict(), "log": np.array([None, "a"])}, tmp_path / "c.pt")
    with pytest.raises(UntrustedFileError, match="it holds an array of O8"):
        read(tmp_path / "c.pt")


@pytest.mark.parametrize("name", sorted(plain_pickle.stand_ins(beside_weights=True)))
@pytest.mark.parametrize("argument", ["touch ran", 10**9, b"O", [1], {"a": 1}])
def test_no_allowed_name_does_anything(name, argument, folder):
    """Each is called with arguments that a file may make up, and has its attributes set by one."""
    found = plain_pickle.stand_ins(beside_weights=True)[name]
    before = set(os.listdir())
    with contextlib.suppress(
        TypeError, ValueError, AttributeError, KeyError, OverflowError, plain_pickle.NotPlainError
    ):
        value = found(argument)
        value.__setstate__({"__class__": "x"})
    assert set(os.listdir()) == before


def test_a_pickle_cannot_mark_a_class_for_the_next_file():
    """BUILD with a pair of states sets attributes, of classes too; stand-ins are made anew."""
    code = b"\x80\x02cargparse\nNamespace\nN}X\x04\x00\x00\x00markNs\x86b."
    marked = plain_pickle.load(io.BytesIO(code))
    assert hasattr(marked, "mark")
    assert not hasattr(argparse.Namespace, "mark")
    assert not hasattr(plain_pickle.load(io.BytesIO(b"\x80\x02cargparse\nNamespace\n.")), "mark")


def test_plain_pickles_take_the_same(tmp_path):
    content = {"when": WHEN, "path": pathlib.Path("a"), "history": history(), "x": np.arange(2)}
    (tmp_path / "b").write_bytes(pickle.dumps(content))
    loaded = read(tmp_path / "b")
    assert (loaded["when"], loaded["history"]) == (WHEN, {"loss": [0.5]})
    (tmp_path / "b").write_bytes(pickle.dumps(content | {"more": Marker(tmp_path / "ran")}))
    with pytest.raises(UntrustedFileError, match=r"mkdir"):
        read(tmp_path / "b")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore")
def test_sharded_tensors_of_one_process_are_refused_with_what_works(tmp_path, monkeypatch):
    class Sharded:
        pass

    Sharded.__module__, Sharded.__qualname__ = "torch.distributed._shard.sharded_tensor.api", "ShardedTensor"
    import torch.distributed._shard.sharded_tensor.api as home

    monkeypatch.setattr(home, "ShardedTensor", Sharded)
    torch.save({"model": {"w": Sharded()}}, tmp_path / "c.pt")
    with pytest.raises(UntrustedFileError, match="one process's shards") as caught:
        read(tmp_path / "c.pt")
    assert "full_state_dict=True" in caught.value.hint
