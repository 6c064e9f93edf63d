"""Small valid files of every format that is loaded or answered: the corpus that is mutated."""

import argparse
import collections
import datetime
import gzip
import io
import json
import pathlib
import pickle
import struct

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

WIDTH = 3  # of the network into which weights are loaded, and to which data are given
MODEL = f"builtin:mlp(depth=2, width={WIDTH})"


def corpus() -> dict[str, bytes]:
    """Contents by file name; the same at every call."""
    torch.manual_seed(0)
    x, y = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2))
    deep = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    deep(torch.zeros(2, 1, 8, 8))
    state = {"0.weight": torch.randn(WIDTH, WIDTH), "2.weight": torch.randn(WIDTH, WIDTH)}
    optimizer = torch.optim.Adam(net.parameters())
    net(x).sum().backward()
    optimizer.step()
    checkpoint = {
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a")),
        "loss": np.float64(0.5),
        "log": np.arange(3),
        "when": datetime.datetime(2026, 1, 2),
        "history": collections.defaultdict(list, {"a": [1.0]}),
    }
    cifar = {b"data": np.arange(24, dtype=np.uint8).reshape(2, 12), b"labels": [0, 1], b"batch_label": b"x"}
    pixels = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 4, 4) + bytes(range(32))
    sparse = {"0.weight": state["0.weight"].to_sparse(), "2.weight": state["2.weight"].to_sparse_csr()}
    attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    saved = {
        "state.pt": state,
        "checkpoint.pt": checkpoint,
        "model.pt": net,
        "conv.pt": deep,
        "attention.pt": attention,
        "lstm.pt": nn.LSTM(WIDTH, 2),
        "batch.pt": (x, y),
        "batches.pt": [(x, y), (x[:2], y[:2])],
        "mapping.pt": {"x": x, "y": y},
        "sparse.pt": sparse,
        "expanded.pt": (x, y[:, :1].expand(4, WIDTH)),
    }
    texts = {
        "table.csv": "a,b,c\n1,2,3\n4,5,6\n",
        "config.json": json.dumps({"model_type": "bert"}),
        "page.html": "<!doctype html><p>not found",
        "model.safetensors.index.json": json.dumps({"weight_map": {"0.weight": "a.safetensors"}}),
    }
    with open_bytes() as stored:
        np.savez(stored, x=x.numpy(), y=y.numpy())
    with open_bytes() as packed:
        np.savez_compressed(packed, **{name: value.numpy() for name, value in state.items()})
    return (
        {name: torch_bytes(content) for name, content in saved.items()}
        | {f"legacy-{name}": torch_bytes(content, legacy=True) for name, content in saved.items() if name != "conv.pt"}
        | {f"plain{number}.pkl": pickle.dumps(cifar, number) for number in (2, 4, 5)}
        | {"plain-args.pkl": pickle.dumps({name: checkpoint[name] for name in ("args", "loss", "log", "when")}, 4)}
        | {"batch.npz": stored.getvalue(), "packed.npz": packed.getvalue()}
        | {"state.safetensors": save(state), "batch.safetensors": save({"x": x, "y": y})}
        | {"t-images-idx3-ubyte": pixels, "t-images-idx3-ubyte.gz": gzip.compress(pixels, mtime=0)}
        | {name: text.encode() for name, text in texts.items()}
    )


def open_bytes() -> io.BytesIO:
    """A stream that stays open, so that its content can be taken."""

    class Kept(io.BytesIO):
        def close(self) -> None:
            pass

    return Kept()


def torch_bytes(content: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()
