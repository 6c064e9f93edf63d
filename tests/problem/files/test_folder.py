"""Folders of transformers models that say more of themselves than their files hold are refused before it costs."""

import json
import os
import resource
import shutil

import pytest
import torch

from hessdiag.errors import LoadError
from hessdiag.problem.files import foreign
from hessdiag.problem.files.folder import DEEPEST, parsed
from hessdiag.problem.load import ProblemRequest, load_problem

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=8, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=1
    )
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "m")


def loaded(folder, **options):
    return load_problem(ProblemRequest(f"hf:{folder}", device="cpu", batch_size=2, **options))


def changed(folder, name="config.json", **changes):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def refusal(folder, **options):
    """What is said, with less than 200 MB taken for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LoadError) as caught:
        loaded(folder, **options)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 10**9},
        {"n_embd": 100_000},
        {"n_positions": 10**9},
        {"n_layer": 10**7},
        {"n_layer": 10**30},
        {"text_config": {"num_hidden_layers": 10**7}},
        {"depths": [1] * 200_000},
    ],
)
def test_a_config_that_asks_for_more_than_its_weights_could_fill(changes, folder):
    changed(folder, **changes)
    error = refusal(folder)
    assert "and at most 256 MB are read" in error.what
    assert error.hint.startswith("--max-unpacked ")


def test_what_is_asked_for_is_allowed(folder):
    changed(folder, n_layer=2)
    assert "and at most 50 kB are read" in refusal(folder, max_unpacked=50_000).what
    assert loaded(folder, max_unpacked=200_000).n_parameters > 2000


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "adapter_config.json", "model.safetensors.index.json"]
)
def test_texts_that_are_too_large_or_too_deep(name, folder):
    (folder / name).write_text('{"a": [' + "[]," * 4_000_000 + "[]]}")
    assert f"{name} would unpack from 12 MB to 384 MB, and at most 256 MB are read" in refusal(folder).what
    for depth in (DEEPEST + 1, 100_000):
        (folder / name).write_text("[" * depth + "]" * depth)
        assert f"{name} is damaged or made up: it is nested more than 100 levels deep." in refusal(folder).what


def test_texts_that_are_not_read_may_be_large(folder):
    (folder / "tokenizer.json").write_text('{"a": [' + "[]," * 4_000_000 + "[]]}")
    assert loaded(folder).n_parameters > 1000


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "cannot be read: JSONDecodeError"),
        ("[1]", "holds a list, and no settings by name"),
        ("null", "holds a NoneType, and no settings by name"),
        ("1" * 10_000, "cannot be read: ValueError"),
        ('{"a": "\ud800"}', "cannot be read: UnicodeDecodeError"),
    ],
)
def test_configs_that_are_none(text, what, folder):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert what in refusal(folder).what


def test_configs_that_are_no_files(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "config.json is no regular file" in refusal(folder).what
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    assert "config.json is no regular file" in refusal(folder).what


def test_weights_in_a_pickle_are_followed_first(folder):
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        file.write(b"\x80\x02" + b"X\x04\x00\x00\x00abcd" + b"(K\x01K\x02t" * 3 + b"0" * 2 + b"R.")
    assert "pytorch_model.bin" in refusal(folder).what


def test_depth_is_that_of_lists_and_mappings(tmp_path):
    path = tmp_path / "a.json"
    for text, depth in (
        ('{"a": [' * (DEEPEST // 2) + "1" + "]}" * (DEEPEST // 2), DEEPEST),
        ("[" * 101 + "]" * 101, 101),
    ):
        path.write_text(text)
        if depth <= DEEPEST:
            assert parsed(path)
        else:
            with pytest.raises(LoadError, match="more than 100 levels"):
                parsed(path)


def test_a_json_file_named_as_a_model_is_answered_whatever_its_size(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "a": [' + "[]," * 4_000_000 + "[]]}")
    assert foreign.model_folder(tmp_path) is None
    with pytest.raises(LoadError):
        load_problem(ProblemRequest(str(tmp_path / "config.json")))
