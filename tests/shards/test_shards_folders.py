"""Folders of transformers models read into pieces, and models whose numbers cannot be."""

import pytest
import torch
from torch import nn

from hessdiag import ProblemRequest, load_problem
from hessdiag.errors import LoadError
from hessdiag.shards import refuse
from tests.shards.sharded_cases import gpt, llama


@pytest.mark.parametrize(("model", "most"), [(gpt, "1GB"), (gpt, "2KB"), (llama, "1GB")])
def test_a_folder_gives_the_pieces_of_the_whole(tmp_path, model, most):
    torch.manual_seed(0)
    model().save_pretrained(tmp_path, max_shard_size=most)
    assert (tmp_path / "model.safetensors.index.json").exists() is (most == "2KB")
    sharded, whole = (
        load_problem(ProblemRequest(f"hf:{tmp_path}", device="cpu", shard=flag)) for flag in (True, False)
    )
    assert not any(note.startswith("shards: each process built") for note in sharded.notes)
    assert [name for name, _ in sharded.named_parameters] == [name for name, _ in whole.named_parameters]
    for piece, parameter in zip(sharded.pieces, whole.parameters, strict=True):
        assert torch.equal(piece, parameter.detach().reshape(-1))
    buffers = dict(sharded.model.named_buffers())
    for name, buffer in whole.model.named_buffers():  # rotary frequencies are in no file
        assert torch.equal(buffers[name], buffer)
    assert all(torch.equal(sharded.data[0][key], value) for key, value in whole.data[0].items())
    assert sharded.value() == pytest.approx(whole.value(), rel=1e-6)


def test_models_without_numbers_and_in_whole_numbers_are_refused():
    with torch.device("meta"):
        bare = nn.BatchNorm1d(2)
    with pytest.raises(LoadError, match=r"weight of net\.py is on the device meta"):
        refuse.numberless(bare, "net.py")
    whole = nn.Linear(2, 2)
    whole.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(LoadError, match=r"the parameter weight is quantized \(int8\)"):
        refuse.model(whole, train_mode=False)
