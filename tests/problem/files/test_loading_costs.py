"""What loading a file may take is bounded by its own size, and nothing in it is called but what saving data writes."""

import gzip
import io
import json
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from fuzz.crafted_pickles import PROTOCOL as P
from fuzz.crafted_pickles import name, number, text, zipped
from fuzz.trial import memory
from fuzz.valid_files import torch_bytes
from torch import nn

from hessdiag.errors import LoadError, UntrustedFileError
from hessdiag.problem.files.allowance import FLOOR, Allowance
from hessdiag.problem.files.checkpoint import existing, read
from hessdiag.problem.load import ProblemRequest, load_problem

ALLOWED = 48 << 20  # beside a multiple of the file's size
PER_BYTE = 60


def storage(numel=4, kind="FloatStorage"):
    return b"(" + text("storage") + name(f"torch {kind}") + text("0") + text("cpu") + number(numel) + b"tQ"


def axes(*lengths):
    return b"(" + b"".join(map(number, lengths)) + b"t"


def tensor(size, stride, numel=4):
    rebuild = name("torch._utils _rebuild_tensor_v2")
    return rebuild + b"(" + storage(numel) + number(0) + axes(*size) + axes(*stride) + b"\x89}tR"


def npy(shape, content=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy:
        for member, content in members.items():
            copy.writestr(f"{member}.npy", content)
    return stream.getvalue()


def nested_modules(depth=40):
    model = nn.Sequential(nn.Linear(4, 2))
    for _ in range(depth):
        model = nn.Sequential(model, model)
    return torch_bytes(model)


def idx(*shape, content=b""):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + content


def safetensors(header):
    return struct.pack("<Q", len(header)) + header


def sparse():
    return torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6))


CALL = "nothing of it was run"
COST = "more time or memory"
SIZE = "would unpack"
DAMAGED = "damaged"
LINEAR = name("torch.nn.modules.linear Linear") + number(40_000) * 2
BOMBS = {
    "memo": (lambda: P + b"Nr\xff\xff\xff\x0f.", DAMAGED),
    "memo in text": (lambda: P + b"Np999999999\n.", DAMAGED),
    "long bytes": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b".", DAMAGED),
    "long text": (lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**33) + b".", DAMAGED),
    "long bytearray": (lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".", DAMAGED),
    "long number": (lambda: P + b"\x8b" + struct.pack("<i", 2**31 - 1) + b".", DAMAGED),
    "frame": (lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**33) + b"N.", DAMAGED),
    "constructor": (lambda: zipped(P + LINEAR + b"\x86R."), CALL),
    "new with arguments": (lambda: zipped(P + LINEAR + b"\x86\x81."), CALL),
    "instance": (lambda: zipped(P + b"(" + number(40_000) * 2 + b"itorch.nn.modules.linear\nLinear\n."), CALL),
    "functional": (lambda: zipped(P + name("torch.nn.functional pad") + tensor((4,), (1,)) + axes(10**9, 0) + b"\x86R."), CALL),
    "bytearray": (lambda: zipped(P + name("builtins bytearray") + number(10**10) + b"\x85R."), CALL),
    "storage": (lambda: zipped(P + name("torch.storage UntypedStorage") + number(10**10) + b"\x85R."), CALL),
    "tensor class": (lambda: zipped(P + name("torch FloatTensor") + number(10**9) + b"\x85R."), CALL),
    "call in a call": (
        lambda: zipped(
            P + name("torch._tensor _rebuild_from_type_v2") + b"(" + name("builtins bytearray")
            + name("torch._tensor Tensor") + number(10**10) + b"\x85}tR."
        ),
        CALL,
    ),
    "tensor beyond its storage": (lambda: zipped(P + tensor((10**10,), (1,)) + b"."), DAMAGED),
    "storage beyond its record": (lambda: zipped(P + tensor((4,), (1,), 10**10) + b"."), DAMAGED),
    "storage beyond the file": (
        lambda: torch_bytes(torch.ones(4), legacy=True).replace(b"K\x04N", b"J\xff\xff\xff\x7fN"),
        DAMAGED,
    ),
    "stride of zero": (lambda: zipped(P + tensor((10**5, 10**5), (0, 0)) + b"."), SIZE),
    "a shape beyond every float": (lambda: zipped(P + tensor((2**60,) * 20, (0,) * 20) + b"."), SIZE),
    "one tensor many times": (lambda: torch_bytes([torch.ones(10**5)] * 10**4), SIZE),
    "one array many times": (lambda: pickle.dumps([np.ones(10**5)] * 10**4), SIZE),
    "sparse": (lambda: torch_bytes({"weight": sparse()}), SIZE),
    "packed": (lambda: archive(x=npy((34 * 10**6,), bytes(272 * 10**6)), y=npy((0,))), SIZE),
    "packed torch": (lambda: deflated(torch_bytes(torch.zeros(26 * 10**7, dtype=torch.uint8))), SIZE),
    "header of an array": (lambda: archive(x=npy((10**11,), bytes(100)), y=npy((0,))), DAMAGED),
    "rows of nothing": (lambda: archive(x=npy((2**40, 0)), y=npy((0,))), DAMAGED),
    "packed images": (lambda: gzip.compress(compresslevel=1, data=idx(26_000, 100, 100, content=bytes(26 * 10**7))), SIZE),
    "images of nothing": (lambda: idx(2**32 - 1, 0, 0), SIZE),
    "bad gzip stream": (lambda: b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + b"\xff" * 50, DAMAGED),
    "rows of nothing, safetensors": (
        lambda: safetensors(b'{"x":{"dtype":"F32","shape":[1099511627776,0],"data_offsets":[0,0]}}'), SIZE,
    ),
    "tuples in tuples": (lambda: P + b"N" + b"2\x86" * 60 + b".", COST),
    "tuples in tuples as a key": (lambda: P + b"}N" + b"2\x86" * 60 + b"Ns.", COST),
    "lists in lists": (lambda: P + b"]" + b"q\1]h\1ah\1a" * 60 + b".", COST),
    "modules in modules": (nested_modules, COST),
    "deep": (lambda: P + b"]" * 50_000 + b"a" * 49_999 + b".", DAMAGED),
    "deep key": (lambda: P + b"})" + b"\x85" * 50_000 + b"Ns.", COST),
    "itself": (lambda: P + b"]q\0h\0a.", DAMAGED),
    "sets": (lambda: b"\x80\x04" + b"\x8f" * 300_000 + b".", COST),
    "keys of one hash": (
        lambda: P + b"}(" + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(12_000)) + b"u.",
        COST,
    ),
    "text of what has no end": (
        lambda: P + name("torch.torch_version TorchVersion") + b"]" + b"q\1]h\1ah\1a" * 40 + b"\x85R.", CALL,
    ),
    "slow codec": (lambda: P + name("_codecs encode") + text("a" * 100_000) + text("idna") + b"\x86R.", CALL),
}  # fmt: skip


def deflated(content):
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy,
    ):
        for member in source.namelist():
            copy.writestr(member, source.read(member))
    return stream.getvalue()


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_little(bomb, tmp_path):
    content, said = BOMBS[bomb]
    path = tmp_path / "file"
    path.write_bytes(content())
    start = time.process_time()
    try:
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")  # the peak starts anew
        before = memory("VmRSS")
    except OSError:
        before = None
    with pytest.raises(LoadError, match=said) as caught:
        read(path)
    assert "\n" not in caught.value.what
    assert time.process_time() - start < 10
    if before is not None:
        assert memory("VmHWM") - before < ALLOWED + PER_BYTE * path.stat().st_size


def test_the_allowance_has_a_floor_and_can_be_raised(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1000)), y=np.zeros(1000))
    assert path.stat().st_size * 16 < 8 * 10**6
    assert read(path)["x"].shape == (1000, 1000), "a data set that is packed well is no attack"
    with pytest.raises(LoadError, match="would unpack") as caught:
        read(path, most=10**6)
    assert "--max-unpacked 9MB" in caught.value.hint
    assert read(path, most=9 * 10**6)["x"].shape == (1000, 1000), "the size that the message names is enough"
    assert Allowance.of(path).most == FLOOR


def test_many_small_shards_share_one_allowance(tmp_path):
    for index in range(4):
        (tmp_path / f"{index}.bin").write_bytes(
            deflated(torch_bytes({f"w{index}": torch.zeros(7 * 10**7, dtype=torch.uint8)}))
        )
    names = {f"w{index}": f"{index}.bin" for index in range(4)}
    (tmp_path / "model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(LoadError, match=r"would unpack from [\d.]+ [kM]B to 280 MB"):
        read(tmp_path)
    assert len(read(tmp_path, most=3 * 10**8)) == 4


def test_an_array_shared_by_two_names_counts_as_it_is(tmp_path):
    """Tied weights, moving averages and expanded targets are no attack."""
    shared = torch.randn(100, 100)
    content = {"a": shared, "b": shared, "rows": torch.ones(100, 1).expand(100, 100), "part": shared[3:5, ::2]}
    torch.save(content, tmp_path / "c.pt")
    loaded = read(tmp_path / "c.pt")
    assert all(torch.equal(loaded[key], value) for key, value in content.items())


def test_two_members_of_one_name_are_refused(tmp_path):
    """Readers differ in which of them they take: what is checked must be what is loaded."""
    torch.save({"w": torch.ones(2)}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt", "a") as copy, pytest.warns(UserWarning, match="Duplicate"):
        copy.writestr(copy.namelist()[0], b"\x80\x02N.")
    with pytest.raises(LoadError, match="two of its members have one name"):
        read(tmp_path / "c.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_indices_beyond_a_sparse_tensor_are_looked_at(zipped, tmp_path):
    """Making it dense would write beyond its memory, and end the process."""
    rows, columns, values = torch.tensor([0, 1, 2]), torch.tensor([0, 10**6]), torch.ones(2)
    csr = torch.sparse_csr_tensor(rows, columns, values, (2, 2), check_invariants=False)
    coo = torch.sparse_coo_tensor(torch.tensor([[0, 10**6], [0, 1]]), values, (2, 2), check_invariants=False)
    for tensor in (csr, coo):
        torch.save({"w": tensor}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(LoadError, match="damaged"):
            read(tmp_path / "c.pt")
    torch.save({"w": torch.eye(2).to_sparse_csr()}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    assert read(tmp_path / "c.pt")["w"].to_dense().sum() == 2


def test_a_device_is_no_file():
    with pytest.raises(LoadError, match="a device or a pipe"):
        existing("/dev/zero")


@pytest.mark.parametrize("names", [("parameters",), ("forward",), ("modules", "state_dict"), ("__call__",)])
def test_modules_that_hide_their_methods(names, folder):
    model = nn.Sequential(nn.Linear(4, 2))
    for hidden in names:
        vars(model[0])[hidden] = nn.functional.relu
    torch.save(model, "m.pt")
    with pytest.raises(LoadError, match=r"it hides its own \w+") as caught:
        load_problem(ProblemRequest("./m.pt", device="cpu"))
    assert "\n" not in caught.value.what


def test_a_layer_that_names_a_huge_size_gets_no_batch_made_up(folder):
    model = nn.Linear(4, 2)
    model.in_features = 10**10
    torch.save(model, "m.pt")
    with pytest.raises(LoadError, match="none could be made up"):
        load_problem(ProblemRequest("./m.pt", device="cpu"))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Upsample(scale_factor=10**8),
        nn.ConstantPad1d((10**9, 0), 0.0),
        nn.AdaptiveAvgPool1d(10**9),
        nn.Unflatten(1, (2, 1)),
    ],
    ids=["upsample", "pad", "pool", "harmless"],
)
@pytest.mark.parametrize("own_data", [True, False])
def test_layers_that_would_make_huge_results(layer, own_data, folder):
    torch.save(nn.Sequential(nn.Linear(4, 2), nn.Unflatten(1, (1, 2)), layer), "m.pt")
    torch.save((torch.ones(3, 4), torch.ones(3, 2, 1, 2)), "batch.pt")
    request = ProblemRequest("./m.pt", data="batch.pt" if own_data else None, device="cpu")
    if isinstance(layer, nn.Unflatten):
        torch.save(nn.Sequential(nn.Linear(4, 2), layer), "m.pt")
        torch.save((torch.ones(3, 4), torch.ones(3, 2, 1)), "batch.pt")
        assert not load_problem(request).model._forward_pre_hooks, "nothing stays on the model"
        return
    before = memory("VmHWM")
    with pytest.raises(LoadError, match=r"would make [\d.]+ [GT]B|none could be made up"):
        load_problem(request)
    assert memory("VmHWM") - before < 256 << 20


def test_trust_lifts_what_is_for_strangers(tmp_path):
    torch.save([torch.ones(10**5)] * 10**4, tmp_path / "c.pt")
    assert len(read(tmp_path / "c.pt", trust_code=True)) == 10**4
    with pytest.raises(LoadError) as caught:
        read(tmp_path / "c.pt")
    assert not isinstance(caught.value, UntrustedFileError)


def test_a_convolution_that_pads_by_its_word(folder):
    model = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1))
    torch.save(model, "m.pt")
    assert load_problem(ProblemRequest("./m.pt", device="cpu")).n_parameters == 4
    model[0].padding = (10**9,)
    torch.save(model, "m.pt")
    with pytest.raises(LoadError, match=r"would make [\d.]+ [GT]B|none could be made up"):
        load_problem(ProblemRequest("./m.pt", device="cpu"))
