"""Formats by content, damaged files in one clear line, and weights found, stripped and checked."""

import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessdiag.errors import HessdiagError, LoadError, SpecError, UntrustedFileError
from hessdiag.problem.files import weights
from hessdiag.problem.files.checkpoint import existing, hashes, read, sniff


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def state():
    torch.manual_seed(0)
    return net().state_dict()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz", "zip", "bin"])
def test_the_suffix_does_not_matter(suffix, state, tmp_path):
    torch.save(state, tmp_path / f"a.{suffix}")
    assert same(read(tmp_path / f"a.{suffix}"), state)
    save_file(state, tmp_path / f"b.{suffix}")
    assert same(read(tmp_path / f"b.{suffix}"), state)
    with (tmp_path / f"c.{suffix}").open("wb") as stream:
        np.savez(stream, **{name: value.numpy() for name, value in state.items()})
    assert same(read(tmp_path / f"c.{suffix}"), state)


@pytest.mark.parametrize("padding", [0x80, 0x280, 0x380, 0x480, 0x580])
def test_a_safetensors_length_may_look_like_a_pickle(padding, tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "w.bin"
    path.write_bytes(padding.to_bytes(8, "little") + header.ljust(padding) + b"\0\0\0\0")
    assert same(read(path), {"w": torch.zeros(1)})


def sharded(state, folder):
    folder.mkdir()
    names = list(state)
    parts = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_sharded_safetensors(state, tmp_path):
    sharded(state, tmp_path / "d")
    assert same(read(tmp_path / "d"), state)
    assert same(read(tmp_path / "d" / "model.safetensors.index.json"), state)
    assert {len(file["sha256"]) for file in hashes([tmp_path / "d"])} == {64}
    (tmp_path / "d" / "model-2.safetensors").unlink()
    with pytest.raises(LoadError, match="model-2"):
        read(tmp_path / "d")


def test_a_shard_cannot_lie_elsewhere(state, tmp_path):
    sharded(state, tmp_path / "d")
    save_file(state, tmp_path / "outside.safetensors")
    (tmp_path / "d" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "../outside.safetensors"}})
    )
    with pytest.raises(LoadError, match="does not exist"):
        read(tmp_path / "d")


def test_folders(state, tmp_path):
    with pytest.raises(LoadError, match="folder without"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoadError, match="hf:"):
        read(tmp_path)
    save_file(state, tmp_path / "model.safetensors")
    assert same(read(tmp_path), state)


def random_bytes(_state, path):
    path.write_bytes(b"\x13\x37" + bytes(range(200)))


def truncated(writer, keep):
    def write(state, path):
        writer(state, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return write


def legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def npz(state, path):
    with path.open("wb") as stream:
        np.savez(stream, **{name: value.numpy() for name, value in state.items()})


DAMAGED = {
    "empty": lambda _state, path: path.write_bytes(b""),
    "random": random_bytes,
    "text": lambda _state, path: path.write_text("hello, this is not a model"),
    "lfs": lambda _state, path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "torch cut": truncated(torch.save, 0.5),
    "legacy cut": truncated(legacy, 0.5),
    "legacy cut early": truncated(legacy, 0.05),
    "safetensors cut": truncated(save_file, 0.9),
    "safetensors header cut": truncated(save_file, 0.1),
    "npz cut": truncated(npz, 0.5),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files(kind, state, tmp_path):
    path = tmp_path / "model.pt"
    DAMAGED[kind](state, path)
    with pytest.raises(LoadError) as caught:
        read(path)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.what
    assert "model.pt" in caught.value.what


def test_missing_files_suggest_their_neighbours(tmp_path):
    (tmp_path / "model.pth").write_text("")
    with pytest.raises(LoadError, match=r"does not exist") as caught:
        existing(str(tmp_path / "model.pt"))
    assert "model.pth" in str(caught.value)
    assert caught.value.exit_code == 3


def test_arrays_of_objects_are_pickles(tmp_path):
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UntrustedFileError, match="can run code"):
        read(tmp_path / "b.npz")


class TestCodeFormats:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def check(self, path, form, model):
        assert sniff(path) == form
        with pytest.raises(UntrustedFileError) as caught:
            read(path)
        assert "--trust-code" in str(caught.value)
        x = torch.randn(5, 3)
        assert torch.allclose(read(path, trust_code=True)(x), model(x))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_torchscript(self, model, tmp_path):
        torch.jit.script(model).save(tmp_path / "m.pt")
        self.check(tmp_path / "m.pt", "torchscript", model)

    def test_exported(self, model, tmp_path):
        torch.export.save(torch.export.export(model, (torch.randn(5, 3),)), tmp_path / "m.pt2")
        (tmp_path / "m.pt2").rename(tmp_path / "m.bin")
        self.check(tmp_path / "m.bin", "pt2", model)

    @pytest.mark.filterwarnings("ignore")
    def test_distributed(self, state, tmp_path):
        import torch.distributed.checkpoint as dcp

        dcp.save({"model": state}, checkpoint_id=tmp_path / "d", no_dist=True)
        assert sniff(tmp_path / "d") == "dcp"
        with pytest.raises(UntrustedFileError, match="distributed checkpoint"):
            read(tmp_path / "d")
        assert same(read(tmp_path / "d", trust_code=True)["model"], state)


WRAPPED = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
    "model": lambda s: {"model": s, "loss": torch.tensor(0.1)},
    "nested": lambda s: {"checkpoint": {"model_state_dict": s}},
    "odd name": lambda s: {"my_net": s},
    "module": lambda s: {"model": loaded_net(s)},
    "lightning": lambda s: {
        "pytorch-lightning_version": "2.0",
        "state_dict": {f"model.{k}": v for k, v in s.items()},
        "hyper_parameters": {"lr": 1.0},
    },
    "ddp": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled ddp": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "deep": lambda s: {"net": {f"module.model._orig_mod.{k}": v for k, v in s.items()}},
}


def loaded_net(state):
    model = net()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_state_dicts_are_found_and_fitted(wrapping, state):
    model = net()
    found, notes = weights.find_state_dict(WRAPPED[wrapping](state), "c.pt")
    notes += weights.load_into(model, found, "c.pt")
    assert same(model.state_dict(), state)
    assert bool(notes) == (wrapping != "bare")


def test_prefixes_stay_where_the_model_has_them(state):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = net()

    wrapper = Wrapper()
    notes = weights.load_into(wrapper, {f"model.{k}": v for k, v in state.items()}, "c.pt")
    assert notes == ()
    weights.load_into(wrapper, {f"module.model.{k}": v for k, v in state.items()}, "c.pt")
    assert same(wrapper.model.state_dict(), state)


def test_several_candidates_must_be_named(state):
    content = {"state_dict": state, "state_dict_ema": {k: v + 1 for k, v in state.items()}}
    with pytest.raises(SpecError) as caught:
        weights.find_state_dict(content, "c.pt")
    assert "c.pt#state_dict or c.pt#state_dict_ema" in str(caught.value)
    assert torch.equal(weights.pick(content, "state_dict_ema", "c.pt")["0.bias"], state["0.bias"] + 1)


def test_keys_with_dots():
    content = {"a": {"b.c": {"w": torch.ones(1)}}}
    assert weights.pick(content, "a.b.c.w", "f") == torch.ones(1)
    for key in ("x", "a.x", "a.b.c.w.y"):
        with pytest.raises(LoadError, match="has no key"):
            weights.pick(content, key, "f")


def test_no_state_dict():
    with pytest.raises(LoadError, match="holds no state_dict"):
        weights.find_state_dict({"epoch": 3}, "c.pt")


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: without(s, "0.bias"), "1 missing: 0.bias"),
        (lambda s: s | {"extra": torch.ones(1)}, "1 unexpected: extra"),
        (
            lambda s: s | {"0.weight": torch.ones(7, 3)},
            "1 of another shape: 0.weight (7, 3) in the file, (4, 3) in the model",
        ),
        (lambda s: {f"x{i}": torch.ones(1) for i in range(9)}, "(9 in all)"),
    ],
)
def test_loading_is_strict(change, said, state):
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(LoadError) as caught:
        weights.load_into(model, change(state), "c.pt")
    assert said in str(caught.value)
    assert same(model.state_dict(), before)


def test_old_checkpoints_lack_batch_counts(state):
    model = net()
    weights.load_into(model, without(state, "1.num_batches_tracked"), "c.pt")
    assert torch.equal(model[0].weight, state["0.weight"])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lm_head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.lm_head.weight = self.embedding.weight


def test_tied_weights_may_be_dropped(tmp_path):
    model, source = Tied(), Tied()
    save_file({"embedding.weight": source.embedding.weight.detach()}, tmp_path / "m.safetensors")
    notes = weights.load_into(model, read(tmp_path / "m.safetensors"), "m.safetensors")
    assert torch.equal(model.lm_head.weight, source.embedding.weight)
    assert "lm_head.weight" in notes[0]
    untied = Tied()
    untied.lm_head.weight = nn.Parameter(torch.ones(5, 3))
    with pytest.raises(LoadError, match=r"missing: lm_head\.weight"):
        weights.load_into(untied, read(tmp_path / "m.safetensors"), "m.safetensors")


def test_another_dtype_is_said(state):
    notes = weights.load_into(net(), {k: v.half() if v.is_floating_point() else v for k, v in state.items()}, "c.pt")
    assert any("float16" in note for note in notes)


def test_every_error_is_one_of_ours(tmp_path, state):
    """Flip bytes all over a file: it loads, or one of our errors says why not."""
    torch.save(state, tmp_path / "ok.pt")
    content = bytearray((tmp_path / "ok.pt").read_bytes())
    for position in range(0, len(content), 97):
        broken = bytearray(content)
        broken[position] ^= 0xFF
        path = tmp_path / "broken.pt"
        path.write_bytes(broken)
        with contextlib.suppress(HessdiagError):
            read(path)


def test_keys_lead_through_lists():
    content = {"states": [{"a": 1}, {"b": {"c": torch.ones(1)}}]}
    assert weights.pick(content, "states.1.b.c", "f") == torch.ones(1)
    assert weights.pick(content, "states.0", "f") == {"a": 1}
    for key in ("states.2", "states.x", "states.-1"):
        with pytest.raises(LoadError, match="a list of 2, counted from 0"):
            weights.pick(content, key, "f")
