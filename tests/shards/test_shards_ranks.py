"""Values, gradients and refusals of sharded problems on one, two and four ranks, each started once for all cases."""

import math
import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.shards import loaded_cases
from tests.shards.forks import on_ranks
from tests.shards.loaded_cases import CASES

SETUP = """
import os, torch
from torch import nn

def setup():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    return model, [(torch.ones(4, 4), torch.arange(4) % 3)], "ce"

def other_losses():
    return *setup()[:2], "mse" if os.environ.get("RANK") == "1" else "ce"

def frozen():
    model, data, loss = setup()
    model[0].bias.requires_grad_(os.environ.get("RANK") == "0")
    return model, data, loss

def more_layers():
    model, data, loss = setup()
    if os.environ.get("RANK") == "1":
        model.append(nn.Linear(3, 3))
    return model, data, loss

def other_batches():
    model, data, loss = setup()
    return model, data * (1 + int(os.environ.get("RANK", 0))), loss
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loaded")
    (folder / "net.py").write_text(SETUP)
    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).state_dict()
    state["2.bias"][2] = math.nan
    save_file(state, folder / "nan.safetensors")
    before = os.getcwd()
    os.chdir(folder)
    try:
        return {size: on_ranks(size, loaded_cases.everything) for size in (1, 2, 4)}
    finally:
        os.chdir(before)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_whole(found, case, size):
    alone = CASES[case]()[3]
    allowed = 1e-6 if case == "rounding inside" else 1e-12
    for value, gradient, cut in (rank[case] for rank in found[size]):
        assert value <= allowed
        assert gradient <= allowed
        assert cut is (alone or size == 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other models", "LoadError 3: 0.weight of rank 1 is not that of rank 0, and each keeps a piece"),
        ("other batches", "LoadError 3: batch 0 of rank 1 is not that of rank 0, and each is to evaluate"),
        ("more batches", "LoadError 3: the number of batches of rank 1 is not that of rank 0"),
        ("other losses", "LoadError 3: the loss of rank 1 is not that of rank 0"),
        ("other losses, loaded", "LoadError 3: the loss of rank 1 is not that of rank 0"),
        ("frozen", "LoadError 3: 0.bias of rank 1 is not that of rank 0"),
        ("frozen, loaded", "LoadError 3: 0.bias of rank 1 is not that of rank 0"),
        ("more layers, loaded", "LoadError 3: the number of parts of rank 1 is not that of rank 0"),
        ("NaN", "LoadError 3: the file nan.safetensors holds weights that are no numbers: 1 of 3 entries of 2.bias"),
        ("dropout", "LoadError 3: 1 (Dropout, p = 0.5) drops in training mode"),
        ("norm", "LoadError 3: 1 (BatchNorm1d) takes the statistics of the batch in training mode"),
        ("rewritten", "LoadError 3: 1.weight is rewritten in the forward pass"),
    ],
)
def test_all_ranks_say_the_same(found, name, said):
    first, second = (rank["said"][name] for rank in found[2])
    assert first == second
    assert first.startswith(said)


def test_wrapped_by_trainers(found):
    for same, fsdp, spread in (rank["wrapped"] for rank in found[2]):
        assert same
        assert fsdp.startswith("LoadError 3: the model is wrapped by FullyShardedDataParallel")
        assert spread.startswith("LoadError 3: the parameter 0.weight is a DTensor (fully_shard")


def test_unequal_batches_end_the_command_with_one_message(tmp_path, programs):
    (tmp_path / "net.py").write_text(SETUP)
    launch = [programs / "python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "--no-python", programs / "hessdiag", "eigs", "net.py:other_batches", "--shard"]
    run = subprocess.run([*command, "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode
    assert run.stderr.count("error: the number of batches of rank 1 is not that of rank 0") == 1
    assert run.stderr.count("exitcode  : 3") >= 1
