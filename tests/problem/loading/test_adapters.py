"""PEFT adapters on a base model: only they are differentiated, and they load from their folder."""

import json
import shutil

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import LoadError, UntrustedFileError
from hessdiag.problem.load import ProblemRequest, load_problem

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

TOKENS, ADAPTED = 16, 32  # r (8 + 24) of one layer


def base():
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=TOKENS, n_positions=8, n_embd=8, n_layer=1, n_head=2, **ends)
    return transformers.GPT2LMHeadModel(config)


def adapted(model, *, task="CAUSAL_LM", drawn=True, **options):
    torch.manual_seed(1)
    config = peft.LoraConfig(r=1, target_modules=["c_attn"], task_type=task, fan_in_fan_out=True, **options)
    made = peft.get_peft_model(model, config)
    for name, parameter in made.named_parameters():
        if drawn and "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base().save_pretrained("base")
    adapted(transformers.GPT2LMHeadModel.from_pretrained("base")).save_pretrained("adapter")
    return tmp_path


def tokens():
    return torch.randint(TOKENS, (4, 6), generator=torch.Generator().manual_seed(2))


def by_brute_force(model, batch):
    """The Hessian of the model's own loss in what is trainable, by torch."""
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def loss(*values):
        return torch.func.functional_call(model, dict(zip(own, values, strict=True)), (), batch).loss

    blocks = torch.autograd.functional.hessian(loss, tuple(own.values()))
    rows = [
        torch.cat([block.reshape(p.numel(), -1) for block in row], 1)
        for row, p in zip(blocks, own.values(), strict=True)
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_a_peft_model_is_differentiated_in_its_adapter_exactly(task):
    model = adapted(base(), task=task).double()
    model.set_attn_implementation("eager")
    batch = {"input_ids": tokens(), "labels": tokens()}
    problem = hessdiag.Problem(model, data=[batch], loss="output")
    assert problem.n_parameters == ADAPTED
    assert all("lora_" in name for name, _ in problem.named_parameters)
    exact = by_brute_force(model, batch)
    assert (hessdiag.hessian(problem) - exact).abs().max() <= 1e-12
    found = hessdiag.eigs(problem, lowest=2, highest=2)
    assert found.highest[-1].eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(exact)[-1]), rel=1e-7)


def test_a_folder_of_an_adapter(here):
    problem = load_problem(ProblemRequest("hf:adapter", dtype="float64", device="cpu"))
    assert problem.n_parameters == ADAPTED
    frozen = sum(parameter.numel() for parameter in base().parameters())
    note = next(note for note in problem.notes if note.startswith("model:"))
    assert "LORA adapter of adapter on ./base, not merged" in note
    assert f"its {ADAPTED} parameters are differentiated, the {frozen:,} of the model are frozen" in note
    read = {entry["path"].rpartition("/")[2] for entry in problem.source["files"]}
    assert read == {"adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors"}
    assert (hessdiag.hessian(problem) - by_brute_force(problem.model.eval(), problem.data[0])).abs().max() <= 1e-12


def test_the_weights_are_those_that_were_saved(here):
    saved = peft.PeftModel.from_pretrained(transformers.GPT2LMHeadModel.from_pretrained("base"), "adapter").eval()
    found = load_problem(ProblemRequest("hf:adapter", device="cpu")).model
    with torch.no_grad():
        theirs, ours = saved(tokens()).logits, found(tokens()).logits
        with saved.disable_adapter():
            without = saved(tokens()).logits
    assert torch.allclose(theirs, ours, atol=1e-6)
    assert not torch.allclose(theirs, without, atol=1e-3)


def test_a_base_that_lies_beside_the_adapter(here, monkeypatch):
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert load_problem(ProblemRequest("hf:../adapter", device="cpu")).n_parameters == ADAPTED


def test_a_base_that_has_moved(here):
    config = json.loads((here / "adapter/adapter_config.json").read_text())
    (here / "adapter/adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/gone/base"}))
    with pytest.raises(LoadError, match="belongs to the model in /gone/base, which is not there") as caught:
        load_problem(ProblemRequest("hf:adapter", device="cpu"))
    assert 'base="./FOLDER"' in caught.value.hint
    found = load_problem(ProblemRequest('hf:adapter(base="./base")', device="cpu"))
    assert found.n_parameters == ADAPTED


def changed(here, **settings):
    path = here / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "changes the inputs"),
        ({"peft_type": "XLORA"}, "more than its own weights"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "megatron_config"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
        ({"base_model_name_or_path": None}, "does not say which model"),
        ({"r": 10**9}, "a rank of 1,000,000,000"),
        ({"target_modules": ["nothing"]}, "peft cannot put adapter on ./base"),
        ({"r": 2}, "peft cannot put adapter on ./base"),
        ({"peft_type": "NEW"}, "peft cannot put adapter on ./base"),
    ],
)
def test_what_an_adapter_may_not_ask_for(settings, says, here):
    changed(here, **settings)
    with pytest.raises(LoadError, match=says) as caught:
        load_problem(ProblemRequest("hf:adapter", device="cpu"))
    assert caught.value.hint


def test_an_adapter_of_another_model(here):
    config = json.loads((here / "adapter/adapter_config.json").read_text())
    shutil.rmtree(here / "base")
    model = base()
    model.transformer.h.append(transformers.models.gpt2.modeling_gpt2.GPT2Block(model.config, 1))
    model.config.n_layer = 2
    model.save_pretrained(here / "base")
    assert config["target_modules"] == ["c_attn"]
    with pytest.raises(LoadError, match="missing adapter keys"):
        load_problem(ProblemRequest("hf:adapter", device="cpu"))


def test_weights_that_would_run_code(here):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    (here / "adapter/adapter_model.safetensors").unlink()
    torch.save({"a": Evil()}, here / "adapter/adapter_model.bin")
    with pytest.raises((UntrustedFileError, LoadError)) as caught:
        load_problem(ProblemRequest("hf:adapter", device="cpu"))
    assert caught.value.exit_code == 3


def test_an_adapter_at_its_start_is_not_called_dead():
    """B is 0, and so the gradient of A: half of the gradients are zero, and it trains all the same."""
    model = adapted(base(), drawn=False)
    problem = hessdiag.Problem(model, data=[{"input_ids": tokens(), "labels": tokens()}], loss="output")
    found = hessdiag.check(problem, optimizer="adam", lr=1e-2)
    still = [layer for layer in found.layers if "lora_A" in layer.layer]
    assert [layer.gradient_rms for layer in still] == [0.0]
    assert found.causes == ()
    assert found.step.losses[-1] < found.step.losses[0]


def test_an_adapter_that_is_dead_is_found():
    """With A at 0 too, no gradient reaches either: a saddle that no step leaves."""
    model = adapted(base(), drawn=False)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            nn.init.zeros_(parameter)
    problem = hessdiag.Problem(model, data=[{"input_ids": tokens(), "labels": tokens()}], loss="output")
    assert hessdiag.check(problem, optimizer="adam", lr=1e-2).causes


def test_some_layers_of_an_adapter(here):
    problem = load_problem(ProblemRequest("hf:adapter", layers="*lora_B*", device="cpu"))
    assert problem.n_parameters == 24
    assert [layer.kind for layer in problem.layer_slices] == ["Linear"]


def test_adapters_of_layers_in_a_row_are_not_called_copies():
    """Zero matrices B of query and value follow each other; their rows are alike, and their gradients are not."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=TOKENS, max_position_embeddings=8, num_labels=3, **sizes)
    lora = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = peft.get_peft_model(transformers.BertForSequenceClassification(config), lora).eval()
    data = [{"input_ids": tokens(), "labels": torch.tensor([0, 1, 2, 0])}]
    found = hessdiag.check(hessdiag.Problem(model, data=data, loss="output"), optimizer="adam", lr=1e-2)
    assert "identical_units" not in [cause.id for cause in found.causes]
    assert [layer.copies_part for layer in found.layers if "lora_B" in layer.layer] == [True, True]
