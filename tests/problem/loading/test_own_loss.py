"""Hugging Face models are measured with the loss that they compute themselves, on labels that suit them."""

import json
import re
import sys
import time
import types

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import hessdiag
from hessdiag.curvature.point.examine import PointWarning
from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.load import ProblemRequest, Shared, load_problem
from hessdiag.problem.loading import online, own_loss, synthetic
from hessdiag.questions.common.described import described
from hessdiag.questions.common.verdict import data_findings

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
IMAGES = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}
MODELS = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 40, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 1}),
    "classes": ("BertForSequenceClassification", "BertConfig", {**SMALL, "num_labels": 3}),
    "regression": ("BertForSequenceClassification", "BertConfig", {**SMALL, "num_labels": 1}),
    "several": (
        "BertForSequenceClassification",
        "BertConfig",
        {**SMALL, "num_labels": 3, "problem_type": "multi_label_classification"},
    ),
    "masked": ("BertForMaskedLM", "BertConfig", SMALL),
    "tokens": ("BertForTokenClassification", "BertConfig", {**SMALL, "num_labels": 5}),
    "spans": ("BertForQuestionAnswering", "BertConfig", SMALL),
    "choices": ("BertForMultipleChoice", "BertConfig", SMALL),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", {**IMAGES, "num_labels": 4}),
    "segments": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8, "num_labels": 3},
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": {**SMALL, "max_position_embeddings": 16, "eos_token_id": 2}, "vision_config": IMAGES, "projection_dim": 8},
    ),
}  # fmt: skip
# Of models that compute their logits or their loss in float32 inside, whatever the dtype of their weights, both sides
# are the same computation and agree to the bit; so the tolerance is one for all.
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny random models, made when they are asked for."""
    root = tmp_path_factory.mktemp("models")

    def folder(name):
        kind, config, options = MODELS[name]
        if not (root / name).exists():
            torch.manual_seed(1)
            getattr(transformers, kind)(getattr(transformers, config)(**options)).save_pretrained(root / name)
        return root / name

    return folder


def problem_of(folder, **options):
    return load_problem(ProblemRequest(f"hf:{folder}", **{"device": "cpu", "dtype": "float64", **options}))


def reference(folder, name, batch):
    """Loss and gradient of a model that transformers loaded by itself."""
    model = getattr(transformers, MODELS[name][0]).from_pretrained(folder, attn_implementation="eager")
    model = model.double().eval()
    loss = model(**batch).loss
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_what_the_model_returns_for_labels(name, saved):
    problem = problem_of(saved(name), batch_size=4)
    assert problem.loss_name == "output"
    assert problem.source["synthetic"]
    value = problem.evaluate(problem.data[0])
    gradient = torch.autograd.grad(value, problem.parameters, allow_unused=True, materialize_grads=True)
    expected, slopes = reference(saved(name), name, problem.data[0])
    assert abs(float(value.detach() - expected)) <= TOLERANCE * abs(float(expected))
    norm = float(torch.cat([slope.flatten() for slope in slopes]).norm())
    assert norm > 0
    for found, slope in zip(gradient, slopes, strict=True):
        assert float((found - slope).norm()) <= TOLERANCE * norm
    assert any("synthetic" in note and "labels" in note for note in problem.notes)
    assert any(note.startswith("loss: output, the model's own") for note in problem.notes)
    assert problem.loss_reduction == ("unknown" if name == "clip" else "mean")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_causal_models_predict_the_next_token(name, saved):
    problem = problem_of(saved(name), batch_size=4)
    (batch,) = problem.data
    assert torch.equal(batch["labels"], batch["input_ids"])
    with problem.evaluation(), torch.no_grad():
        logits = problem.model(batch["input_ids"]).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten())
    assert float(problem.evaluate(batch).detach()) == pytest.approx(float(expected), rel=1e-6)
    assert problem.averaged.count == 4 * 15


def test_masked_models_predict_what_is_masked(saved):
    (batch,) = problem_of(saved("masked"), batch_size=4).data
    predicted = batch["labels"] != -100
    assert predicted.sum(1).tolist() == [2] * 4
    assert bool((batch["labels"][~predicted] == -100).all())


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("classes", torch.int64, (4,)),
        ("regression", torch.float64, (4,)),
        ("several", torch.float64, (4, 3)),
        ("tokens", torch.int64, (4, 16)),
        ("choices", torch.int64, (4,)),
        ("vit", torch.int64, (4,)),
        ("segments", torch.int64, (4, 32, 32)),
    ],
)
def test_labels_suit_the_head(name, dtype, shape, saved):
    labels = problem_of(saved(name), batch_size=4).data[0]["labels"]
    assert (labels.dtype, tuple(labels.shape)) == (dtype, shape)


def test_special_tokens_are_not_drawn(saved):
    tokens = problem_of(saved("llama"), batch_size=32).data[0]["input_ids"]
    assert not {1, 2} & set(tokens.unique().tolist())


def test_the_same_seed_gives_the_same_batches_and_another_others(saved):
    first, again, other = (problem_of(saved("gpt2"), batches=2, batch_size=3, seed=seed).data for seed in (0, 0, 1))
    assert len(first) == 2
    assert torch.equal(first[0]["input_ids"], again[0]["input_ids"])
    assert not torch.equal(first[0]["input_ids"], first[1]["input_ids"])
    assert not torch.equal(first[0]["input_ids"], other[0]["input_ids"])


class TestData:
    """Labels that the user gives."""

    TOKENS = torch.randint(3, 40, (4, 6), generator=torch.Generator().manual_seed(0))

    def loaded(self, folder, tmp_path, batch, **options):
        torch.save(batch, tmp_path / "b.pt")
        return problem_of(folder, data=str(tmp_path / "b.pt"), **options)

    def test_tokens_as_inputs_and_targets_of_a_causal_model(self, saved, tmp_path):
        problem = self.loaded(saved("gpt2"), tmp_path, (self.TOKENS, self.TOKENS))
        assert problem.loss_name == "output"
        expected, _ = reference(saved("gpt2"), "gpt2", {"input_ids": self.TOKENS, "labels": self.TOKENS})
        assert float(problem.evaluate(problem.data[0]).detach()) == float(expected)

    def test_tokens_alone_of_a_causal_model(self, saved, tmp_path):
        mask = torch.ones_like(self.TOKENS)
        mask[0, 4:] = 0
        problem = self.loaded(saved("gpt2"), tmp_path, {"input_ids": self.TOKENS, "attention_mask": mask})
        assert problem.data[0]["labels"][0].tolist() == [*self.TOKENS[0, :4].tolist(), -100, -100]
        assert problem.averaged.count == 3 + 3 * 5
        assert any("the tokens themselves are the labels" in note for note in problem.notes)

    @pytest.mark.parametrize("ignored", [False, True])
    def test_targets_that_are_the_next_tokens_already_are_not_shifted_again(self, ignored, saved, tmp_path):
        inputs, targets = self.TOKENS[:, :-1], self.TOKENS[:, 1:].clone()
        if ignored:
            targets[:, 0] = -100
        problem = self.loaded(saved("gpt2"), tmp_path, (inputs, targets))
        assert problem.loss_name == "ce"
        with problem.evaluation(), torch.no_grad():
            logits = problem.model(inputs).logits
        expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        assert float(problem.evaluate(problem.data[0]).detach()) == pytest.approx(float(expected), rel=1e-12)
        assert any("next tokens already" in note for note in problem.notes)
        with pytest.raises(LoadError, match="shift them once more"):
            self.loaded(saved("gpt2"), tmp_path, (inputs, targets), loss="output")

    @pytest.mark.parametrize("loss", [None, "output"])
    def test_inputs_and_labels_of_a_classifier(self, loss, saved, tmp_path):
        problem = self.loaded(saved("classes"), tmp_path, (self.TOKENS, torch.tensor([0, 1, 2, 0])), loss=loss)
        assert problem.loss_name == "output"
        assert set(problem.data[0]) == {"input_ids", "labels"}

    def test_several_inputs_by_their_order(self, saved, tmp_path):
        inputs = (self.TOKENS, torch.ones_like(self.TOKENS))
        problem = self.loaded(saved("classes"), tmp_path, (inputs, torch.tensor([0, 1, 2, 0])))
        assert set(problem.data[0]) == {"input_ids", "attention_mask", "labels"}

    def test_whole_numbers_as_labels_of_a_regression(self, saved, tmp_path):
        problem = self.loaded(saved("regression"), tmp_path, (self.TOKENS, torch.tensor([0, 1, 2, 0])))
        expected, _ = reference(saved("regression"), "regression", problem.data[0])
        assert float(problem.evaluate(problem.data[0]).detach()) == float(expected)
        assert problem.data[0]["labels"].dtype == torch.float64

    def test_images_and_labels(self, saved, tmp_path):
        images = torch.randn(4, 3, 16, 16)
        problem = self.loaded(saved("vit"), tmp_path, (images, torch.tensor([0, 1, 2, 3])))
        assert set(problem.data[0]) == {"pixel_values", "labels"}
        with problem.evaluation(), torch.no_grad():
            logits = problem.model(images.double()).logits
        expected = F.cross_entropy(logits, torch.tensor([0, 1, 2, 3]))
        assert float(problem.evaluate(problem.data[0]).detach()) == pytest.approx(float(expected), rel=1e-12)

    def test_another_loss_is_left_to_who_asks_for_it(self, saved, tmp_path):
        problem = self.loaded(saved("classes"), tmp_path, (self.TOKENS, torch.tensor([0, 1, 2, 0])), loss="ce")
        assert problem.loss_name == "ce"
        assert isinstance(problem.data[0], tuple)

    def test_a_mapping_without_labels_is_told_what_it_lacks(self, saved, tmp_path):
        with pytest.raises(LoadError, match="no target: it holds input_ids") as caught:
            self.loaded(saved("masked"), tmp_path, {"input_ids": self.TOKENS})
        assert caught.value.hint == "labels beside its inputs, or --objective"

    def test_batches_are_cut(self, saved, tmp_path):
        problem = self.loaded(saved("classes"), tmp_path, (self.TOKENS, torch.tensor([0, 1, 2, 0])), batch_size=3)
        assert [len(batch["labels"]) for batch in problem.data] == [3, 1]
        assert problem.batch_weights == (0.75, 0.25)


def test_a_model_without_a_head_is_measured_on_its_hidden_state(saved, tmp_path):
    model = transformers.BertModel(transformers.BertConfig(**SMALL))
    assert not own_loss.takes_labels(model)
    model.save_pretrained(tmp_path / "base")
    assert problem_of(tmp_path / "base", batch_size=2).loss_name == "mse"


def test_a_model_that_no_labels_suit_says_why(saved, tmp_path):
    config = json.loads((saved("gpt2") / "config.json").read_text())
    config = {**config, "architectures": ["GPT2ForSequenceClassification"], "num_labels": 2, "pad_token_id": None}
    model = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**config))
    model.save_pretrained(tmp_path / "g")
    with pytest.raises(LoadError, match="padding token") as caught:
        problem_of(tmp_path / "g")
    assert caught.value.hint == "--data batch.pt, a mapping with its inputs and labels"
    assert problem_of(f"{tmp_path / 'g'}(pad_token_id=0)").loss_name == "output"


MASKED = {**IMAGES, "patch_size": 4}


def test_a_masked_autoencoder_is_measured_on_one_draw_of_its_masks(tmp_path):
    decoder = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTMAEConfig(**MASKED, **{f"decoder_{name}": value for name, value in decoder.items()})
    torch.manual_seed(0)
    model = transformers.ViTMAEForPreTraining(config)
    with torch.no_grad():
        for parameter in model.parameters():  # fresh ones make LayerNorm divide by nearly nothing
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "mae")
    problem = problem_of(tmp_path / "mae", batch_size=3)
    assert problem.loss_name == "output"
    assert set(problem.data[0]) == {"pixel_values"}
    assert any("no labels: the loss is of the inputs alone" in note for note in problem.notes)
    assert any(note.startswith("loss: output, the model's own; ") for note in problem.notes)
    with pytest.warns(PointWarning, match="The forward pass draws random numbers"):
        H = hessdiag.hessian(problem)
    assert float((H - H.T).norm()) <= 1e-6 * float(H.norm())  # softmax is taken in float32 inside


def test_a_model_without_a_head_is_given_the_size_of_its_config(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**IMAGES)).save_pretrained(tmp_path / "vit")
    problem = problem_of(tmp_path / "vit", batch_size=2)
    assert problem.loss_name == "mse"
    assert problem.data[0][0].shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        (
            "VideoMAEForPreTraining",
            lambda: transformers.VideoMAEConfig(
                **IMAGES,
                num_frames=4,
                decoder_hidden_size=8,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=2,
            ),
            r"inputs of shape \(32, 4, 3, 16, 16\) alone do not pass \(TypeError: .*missing 1 required .* 'bool_masked_pos'\)\.$",
        ),
        (
            "ViTForMaskedImageModeling",
            lambda: transformers.ViTConfig(**MASKED),
            r"inputs of shape \(32, 3, 16, 16\) alone do not pass \(the model returns a MaskedImageModelingOutput",
        ),
    ],
)
def test_models_that_need_other_inputs_say_which(kind, config, why, tmp_path):
    getattr(transformers, kind)(config()).save_pretrained(tmp_path / "m")
    with pytest.raises(LoadError) as caught:
        problem_of(tmp_path / "m")
    assert re.search(why, caught.value.what)
    assert caught.value.what.startswith(f"no data was given, and none could be made up for this {kind}: ")
    assert caught.value.hint.endswith("batch.pt, a mapping with all that its forward pass needs")


class Refusing(torch.nn.Module):
    """Says why it takes no labels, after an empty line."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(5, 2)
        self.config = types.SimpleNamespace(vocab_size=5)

    def forward(self, input_ids, labels=None):
        if labels is not None:
            raise ValueError("\nno labels are taken")
        return types.SimpleNamespace(logits=self.words(input_ids))


def test_a_reason_that_begins_with_an_empty_line_is_one():
    with pytest.raises(LoadError, match="none with labels could be made up for this Refusing: no labels are taken"):
        own_loss.make(Refusing())


def test_a_config_that_asks_for_enormous_inputs_is_answered(tmp_path):
    model = transformers.ViTModel(transformers.ViTConfig(**IMAGES))
    model.config.image_size = 10**9
    with pytest.raises(LoadError, match="asks for inputs of shape"):
        synthetic.make(model, "mse")


class TestHub:
    """Names of the hub from a machine that does not reach it."""

    @pytest.fixture
    def unreachable(self, monkeypatch, tmp_path):
        from huggingface_hub import constants

        monkeypatch.setattr(online, "PATIENCE", 0.2)
        monkeypatch.setattr(constants, "ENDPOINT", "http://192.0.2.1")  # an address for documentation: nobody answers
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        return constants

    def test_a_name_fails_in_seconds_and_says_what_works(self, unreachable):
        started = time.monotonic()
        with pytest.raises(LoadError) as caught:
            load_problem(ProblemRequest("hf:some/model"))
        assert time.monotonic() - started < 10
        assert "some/model is not in this machine's cache" in caught.value.what
        assert caught.value.hint.startswith("hf download some/model --local-dir model")
        assert unreachable.HF_HUB_OFFLINE is False

    def test_loads_of_one_command_ask_once(self, unreachable, monkeypatch):
        asked = []
        monkeypatch.setattr(online, "hub_answers", lambda: bool(asked.append("")))
        shared = Shared()
        for seed in range(3):
            with pytest.raises(LoadError, match="not in this machine's cache"):
                load_problem(ProblemRequest("hf:some/model", seed=seed), shared)
        assert len(asked) == 1

    def test_nobody_asks_where_the_environment_says_offline(self, unreachable, monkeypatch):
        monkeypatch.setattr(unreachable, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(online.threading, "Thread", None)
        assert online.hub_answers() is False

    def test_a_package_that_does_not_fit_is_hidden(self, monkeypatch, tmp_path):
        (tmp_path / "no_such_vision.py").write_text("raise RuntimeError('operator nms does not exist')")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "no_such_vision", None)  # so that it is taken away again
        del sys.modules["no_such_vision"]
        online.hide_if_broken("no_such_vision")
        assert sys.modules["no_such_vision"] is None
        online.hide_if_broken("there_is_nothing_of_this_name")
        assert "there_is_nothing_of_this_name" not in sys.modules


@pytest.mark.parametrize(("spec", "loss"), [("timm:net", "ce"), ("torchvision:net", "ce"), ("timm:features", "mse")])
def test_image_classifiers_without_a_loss_of_their_own_get_cross_entropy(spec, loss, monkeypatch):
    def create(name, **options):
        model = torch.nn.Linear(4, 3)
        model.num_classes = 0 if name == "features" else 3
        return model

    models = types.SimpleNamespace(get_model=create)
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create))
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    problem = load_problem(ProblemRequest(spec, device="cpu"))
    assert problem.loss_name == loss
    assert f"loss: {loss}, assumed" in problem.notes[-1]


def test_names_that_are_nearly_right_and_weights_that_are_not_here(monkeypatch):
    def create(name, pretrained):
        raise (ConnectionError("offline") if pretrained else RuntimeError(f"Unknown model ({name})"))

    timm = types.SimpleNamespace(create_model=create, list_models=lambda: ["resnet18", "vit_tiny"])
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setattr(online, "hub_answers", lambda: False)
    with pytest.raises(SpecError) as caught:
        load_problem(ProblemRequest("timm:resnet81"))
    assert caught.value.hint == "timm:resnet18"
    with pytest.raises(LoadError, match="not in this machine's cache") as unreached:
        load_problem(ProblemRequest("timm:resnet18(pretrained=True)"))
    assert unreached.value.hint == "'timm:resnet18', with random weights, and --weights FILE"


def test_the_finding_on_synthetic_data_names_data_that_work(saved):
    (finding,) = data_findings(described(problem_of(saved("vit"), batch_size=2)))
    assert finding.remedy == "--data batch.pt, a mapping with labels"
