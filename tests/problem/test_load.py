"""From a request to a problem: each kind of model, data and loss, each misfit with its exit code."""

import hashlib
import json
import random
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.point.examine import examine
from hessdiag.errors import ExitCode, HessdiagError, LoadError, SpecError, UntrustedFileError
from hessdiag.problem import load
from hessdiag.problem.batches.batch import forward
from hessdiag.problem.describe import describe
from hessdiag.problem.load import ALL, ProblemRequest, load_problem
from hessdiag.problem.loading.fit import check
from hessdiag.problem.problem import Problem

TRAIN = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

X, Y = torch.linspace(-1, 1, 40).reshape(10, 4), torch.arange(10) % 3

def build_model(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

class Ending(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 3), nn.LogSoftmax(-1))

def batch(): return X, Y
def regression(): return X, X[:, :3]
def two(): return [(X, Y), (X[:4], Y[:4])]
def loader(): return DataLoader(TensorDataset(X, Y), batch_size=4)
def numbers(): return np.zeros((3, 4)), np.zeros(3, dtype=np.int64)
def wrong_shape(): return X[:, :2], Y
def wrong_targets(): return X, Y[:3]
def high_targets(): return X, Y + 9
def bad(): return X / 0, Y
def one_output(): return nn.Linear(4, 1), (X, Y % 2), None
def setup(width=5): return build_model(width), (X, Y), "ce"
def setup_loader(): return build_model(), loader(), nn.CrossEntropyLoss(reduction="sum")
def as_dict(): return {"model": build_model(), "batches": two(), "loss": "ce"}
def odd_dict(): return {"model": build_model(), "bathces": two()}
def pair(): return build_model(), (X, Y)
def nothing(): return None

def problem():
    import hessdiag.problem.problem as p
    return p.Problem(build_model(), [(X, Y)], "ce", layers="0*", seed=5, notes=("mine",))

def focal(output, target, gamma=2.0):
    p = output.softmax(-1).gather(1, target[:, None])
    return (-(1 - p) ** gamma * p.log()).mean()

def make_focal(gamma):
    return lambda output, target: focal(output, target, gamma)

def penalty(model, batch):
    return model(batch[0]).square().mean()

def vector(output, target): return output.sum(1)
def detached(output, target): return output.detach().mean()
def noisy(): return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
"""


@pytest.fixture
def train(folder):
    (folder / "train.py").write_text(TRAIN)
    return folder


def problem_of(model, **options):
    return load_problem(ProblemRequest(model, device="cpu", **options))


def refused(model, **options):
    with pytest.raises(HessdiagError) as caught:
        problem_of(model, **options)
    assert "\n" not in caught.value.what
    return caught.value


class TestModels:
    @pytest.mark.parametrize("name", ["mlp", "lenet", "convnet", "chain"])
    def test_builtins(self, name):
        problem = problem_of(f"builtin:{name}")
        assert problem.dtype == torch.float64
        assert problem.source["synthetic"] is True
        assert any("synthetic" in note for note in problem.notes)
        assert any("loss: mse, assumed" in note for note in problem.notes)

    def test_builtin_arguments(self):
        assert problem_of("builtin:mlp(depth=2, width=3, in_features=5)").n_parameters == 24
        assert refused("builtin:mpl").exit_code == 2
        assert "builtin:mlp" in str(refused("builtin:mpl"))
        assert "unexpected keyword argument 'widht'" in str(refused("builtin:mlp(widht=3)"))
        assert refused("builtin:mlp(activation='rleu')").exit_code == 2

    def test_the_first_command_of_the_readme(self, folder):
        torch.save(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)), "model.pt")
        problem = problem_of("model.pt")
        assert (problem.n_parameters, problem.dtype, problem.n_samples) == (195, torch.float32, 32)
        digest = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
        assert problem.source["files"] == [{"path": "model.pt", "sha256": digest}]
        np.savez("batch.npz", x=np.random.default_rng(0).normal(size=(5, 8)), y=np.arange(5) % 3)
        problem = problem_of("model.pt", data="batch.npz", loss="ce")
        assert (problem.n_samples, problem.loss_name, problem.source["synthetic"]) == (5, "ce", False)
        assert problem.data[0][0].dtype == torch.float32
        assert problem.notes == ()

    def test_functions_tuples_dicts_and_problems(self, train):
        assert problem_of("train.py:build_model(width=2)").n_parameters == 19
        assert problem_of("train:build_model").n_parameters == 43
        whole = problem_of("train.py:setup(width=2)")
        assert (whole.n_parameters, whole.n_samples, whole.loss_name) == (19, 10, "ce")
        whole = problem_of("train.py:as_dict")
        assert (len(whole.data), whole.n_samples) == (2, 14)
        whole = problem_of("train.py:problem")
        assert (whole.n_parameters, whole.seed, whole.layers, whole.notes) == (25, 5, "0*", ("mine",))

    def test_loaders(self, train):
        assert problem_of("train.py:setup_loader").n_samples == 4
        assert any("first batch of 3" in note for note in problem_of("train.py:setup_loader").notes)
        whole = problem_of("train.py:setup_loader", batches=ALL)
        assert (whole.n_samples, whole.loss_reduction) == (10, "sum")

    def test_what_a_function_may_not_return(self, train):
        assert "a tuple of 2 items" in str(refused("train.py:pair"))
        assert "a NoneType" in str(refused("train.py:nothing"))
        assert "'bathces'" in str(refused("train.py:odd_dict"))

    def test_options_win_over_the_setup(self, train):
        problem = problem_of("train.py:problem", data="train.py:two", loss="ce", layers="2*", train_mode=True)
        assert (problem.n_samples, problem.layers, problem.train_mode) == (14, "2*", True)
        assert problem_of("train.py:setup", data="train.py:problem").n_samples == 10
        assert problem_of("train.py:setup", objective="train.py:penalty").loss_name == "penalty"

    def test_a_compiled_model_is_unwrapped(self, folder):
        (folder / "c.py").write_text("import torch\ndef f(): return torch.compile(torch.nn.Linear(3, 2))\n")
        assert type(problem_of("c.py:f").model) is nn.Linear

    def test_a_state_dict_has_no_architecture(self, folder):
        torch.save({"state_dict": nn.Linear(1000, 1000).state_dict()}, "model.pt")
        error = refused("model.pt")
        assert isinstance(error, SpecError)
        assert "a state_dict (2 tensors, 1.0 M parameters; first key weight)" in str(error)
        assert "'train.py:build_model' --weights model.pt" in str(error)
        torch.save({"state_dict": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}}, "model.pt")
        assert refused("model.pt").exit_code == 2
        torch.save({"epoch": 1}, "model.pt")
        assert refused("model.pt").exit_code == 3

    def test_a_module_inside_a_checkpoint(self, folder):
        torch.save({"epoch": 1, "model": nn.Linear(3, 2), "ema": nn.Linear(3, 4)}, "model.pt")
        assert refused("model.pt").exit_code == 2
        assert problem_of("model.pt#ema").n_parameters == 16

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("form", ["torchscript", "pt2"])
    def test_code_formats(self, form, folder):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        x = torch.randn(5, 3)
        if form == "torchscript":
            torch.jit.script(model).save("m.pt")
        else:
            torch.export.save(torch.export.export(model, (x,)), "m.pt2")
        torch.save((x, torch.randn(5, 2)), "b.pt")
        path = "m.pt" if form == "torchscript" else "m.pt2"
        assert isinstance(refused(path, data="b.pt"), UntrustedFileError)
        problem = problem_of(path, data="b.pt", trust_code=True)
        assert problem.source["trusted_code"] is True
        parameters = problem.parameters

        def second(module, weights):
            loss = ((module(problem.data[0][0]) - problem.data[0][1]) ** 2).mean()
            first = torch.autograd.grad(loss, weights, create_graph=True)
            return torch.autograd.grad(sum(g.square().sum() for g in first), weights)

        for ours, theirs in zip(
            second(problem.model, parameters), second(model, list(model.parameters())), strict=True
        ):
            assert torch.allclose(ours, theirs, atol=1e-6)


class TestWeights:
    def test_weights_are_loaded_and_said(self, train):
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, "w.ckpt")
        problem = problem_of("train.py:setup", weights="w.ckpt")
        assert torch.equal(problem.model[0].weight, model[0].weight)
        assert any("'model'" in note for note in problem.notes)
        assert any("'module.'" in note for note in problem.notes)
        assert [file["path"].rpartition("/")[2] for file in problem.source["files"]] == ["train.py", "w.ckpt"]

    def test_a_key_may_be_named_and_must_fit(self, train):
        states = {key: nn.Linear(4, 3).state_dict() for key in ("state_dict", "ema")}
        torch.save(states, "w")
        (train / "lin.py").write_text("import torch\ndef f(): return torch.nn.Linear(4, 3)\n")
        assert refused("lin.py:f", weights="w").exit_code == 2
        assert torch.equal(problem_of("lin.py:f", weights="w#ema").model.weight, states["ema"]["weight"])
        assert "2 unexpected: weight, bias" in str(refused("train.py:setup", weights="w#ema"))


class TestData:
    @pytest.mark.parametrize(
        ("options", "samples", "loss"),
        [
            ({"data": "train.py:batch"}, [10], "ce"),
            ({"data": "train.py:regression"}, [10], "mse"),
            ({"data": "train.py:two"}, [10, 4], "ce"),
            ({"data": "train.py:loader"}, [4], "ce"),
            ({"data": "train.py:loader", "batches": 2}, [4, 4], "ce"),
            ({"data": "train.py:loader", "batches": ALL}, [4, 4, 2], "ce"),
            ({"data": "train.py:batch", "batch_size": 4}, [4, 4, 2], "ce"),
            ({"data": "train.py:numbers"}, [3], "ce"),
            ({"data": "train:X", "objective": "train.py:vector_free"}, [10], "objective"),
            ({"batch_size": 7}, [7], "mse"),
            ({"batch_size": 7, "batches": 2}, [7, 7], "mse"),
            ({"loss": "ce", "batches": ALL}, [32], "ce"),
        ],
    )
    def test_batches_and_the_assumed_loss(self, train, options, samples, loss):
        (train / "train.py").write_text(TRAIN + "vector_free = lambda model, x: model(x).mean()\n")
        problem = problem_of("train.py:build_model", **options)
        assert [len(batch) if isinstance(batch, torch.Tensor) else len(batch[0]) for batch in problem.data] == samples
        assert problem.loss_name == (loss if loss != "objective" else "<lambda>")
        given = "loss" in options or "objective" in options
        assert any("assumed" in note for note in problem.notes) == (not given)

    def test_log_probabilities_get_nll(self, train):
        assert problem_of("train.py:Ending", data="train.py:batch").loss_name == "nll"

    def test_files(self, train):
        np.savez("b.npz", images=np.ones((6, 4), dtype=np.uint8), labels=np.zeros(6, dtype=np.int32))
        problem = problem_of("train.py:build_model", data="b.npz#images,labels", dtype="float64")
        assert (problem.loss_name, problem.data[0][0].dtype, problem.data[0][1].dtype) == (
            "ce",
            torch.float64,
            torch.int64,
        )
        assert any("uint8" in note for note in problem.notes)

    @pytest.mark.parametrize(
        ("model", "options", "said"),
        [
            (
                "train.py:build_model",
                {"data": "train.py:wrong_shape"},
                "inputs (10, 2) float32: RuntimeError: mat1 and mat2",
            ),
            (
                "train.py:build_model",
                {"data": "train.py:wrong_targets"},
                "outputs (10, 3) float32 with targets (3,) int64",
            ),
            ("train.py:build_model", {"data": "train.py:high_targets"}, "out of bounds"),
            ("train.py:build_model", {"data": "train.py:bad"}, "NaN or infinite"),
            ("train.py:one_output", {}, "could be classes or counts"),
            ("train.py:build_model", {"data": "nofile.npz"}, "does not exist"),
            ("train.py:setup", {"loss": "train.py:detached"}, "does not depend on any trainable parameter"),
            ("train.py:setup", {"loss": "train.py:vector"}, "must return a scalar"),
            ("train.py:build_model", {"loss": "output"}, "labels"),
            ("train.py:nofunction", {"data": "train.py:batch"}, "has no 'nofunction'"),
        ],
    )
    def test_misfits(self, train, model, options, said):
        error = refused(model, **options)
        assert said in str(error)
        assert error.exit_code == (2 if "nofunction" in model else 3)

    def test_a_broken_loss_is_taken_where_it_is_asked_for(self, train):
        more = "infinite = lambda o, y: (o.sum() * 0 + 1) / (o.sum() * 0)\n"
        (train / "train.py").write_text(TRAIN + more)
        for loss in ("detached", "infinite"):
            refused("train.py:setup", loss=f"train.py:{loss}")
            assert problem_of("train.py:setup", loss=f"train.py:{loss}", broken_loss=True).loss_name
            cut = problem_of("train.py:setup", loss=f"train.py:{loss}", broken_loss=True, batch_size=4)
            assert max(len(x) for x, _ in cut.data) <= 4
        assert "must return a scalar" in str(refused("train.py:setup", loss="train.py:vector", broken_loss=True))


class TestLoss:
    def test_numbers_of_a_criterion_go_where_the_outputs_are(self, train):
        weighted = "\nweighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))\n"
        (train / "train.py").write_text(
            TRAIN + weighted + "def both():\n    return build_model(), [batch()], weighted\n"
        )
        problem = problem_of("train.py:both", dtype="float64")
        assert problem.evaluate(problem.data[0]).dtype == torch.float64

    @pytest.mark.parametrize(
        ("text", "name", "reduction"),
        [
            ("mse", "mse", "mean"),
            ("train.py:focal", "focal", "unknown"),
            ("train.py:make_focal(gamma=1.0)", "<lambda>", "unknown"),
            ("torch.nn:CrossEntropyLoss", "CrossEntropyLoss", "mean"),
            ("torch.nn:CrossEntropyLoss(reduction='sum')", "CrossEntropyLoss", "sum"),
            ("torch.nn.functional:cross_entropy", "cross_entropy", "mean"),
        ],
    )
    def test_forms(self, train, text, name, reduction):
        data = "train.py:regression" if text == "mse" else "train.py:batch"
        problem = problem_of("train.py:build_model", loss=text, data=data)
        assert (problem.loss_name, problem.loss_reduction) == (name, reduction)

    @pytest.mark.parametrize(
        "options",
        [
            {"loss": "crossentropy"},
            {"loss": "builtin:mlp"},
            {"loss": "train.py"},
            {"loss": "train.py:fokal"},
            {"loss": "ce", "objective": "train.py:penalty"},
            {"objective": "penalty"},
            {"device": "gpu"},
            {"dtype": "float63"},
            {"batches": 0},
            {"batch_size": -1},
            {"data": "hf:x"},
            {"data": "batch"},
            {"layers": "nothing*"},
        ],
    )
    def test_what_cannot_be_understood(self, train, options):
        with pytest.raises(SpecError) as caught:
            load_problem(ProblemRequest("train.py:setup", **{"device": "cpu", **options}))
        assert caught.value.exit_code == ExitCode.USAGE
        assert "\n" not in caught.value.what

    @pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
    def test_a_device_that_is_not_there(self, train):
        with pytest.raises(LoadError, match="not available"):
            load_problem(ProblemRequest("train.py:setup", device="cuda"))


class TestState:
    def test_the_same_seed_gives_the_same_problem(self, train):
        first, again, other = (describe(problem_of("train.py:build_model", seed=seed)) for seed in (1, 1, 2))
        assert first == again
        assert first["weights_sha256"] != other["weights_sha256"]
        assert first["data_sha256"] != other["data_sha256"]

    def test_global_randomness_is_put_back(self, train):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        problem_of("builtin:mlp")
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        assert np.array_equal(before[2], np.random.get_state()[1])

    @pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
    def test_dtype(self, train, dtype):
        problem = problem_of("train.py:setup", dtype=dtype)
        assert problem.dtype == getattr(torch, dtype)
        assert problem.data[0][0].dtype == problem.dtype

    def test_training_mode_is_said(self, train):
        problem = problem_of("train.py:noisy", train_mode=True)
        assert any(note.startswith("train mode") for note in problem.notes)
        assert int(problem.model[1].num_batches_tracked) == 0
        assert not any(note.startswith("train mode") for note in problem_of("train.py:setup", train_mode=True).notes)


class TestDescribe:
    def test_it_is_json_and_right(self, train):
        document = describe(problem_of("train.py:setup_loader", batches=ALL, layers="2*"))
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        expected = {
            "model": "Sequential",
            "spec": "train.py:setup_loader",
            "parameters": 18,
            "parameters_total": 43,
            "frozen": 0,
            "tied": 0,
            "layers": [{"name": "2", "kind": "Linear", "parameters": 18}],
            "samples": 10,
            "batches": 3,
            "batch_weights": [1.0, 1.0, 1.0],
            "input_shape": [4],
            "outputs": 3,
            "synthetic": False,
            "loss": "CrossEntropyLoss",
            "reduction": "sum",
            "device": "cpu",
            "dtype": "float32",
            "train_mode": False,
            "seed": 0,
            "trusted_code": False,
        }
        assert {key: document[key] for key in expected} == expected
        assert [file["path"].rpartition("/")[2] for file in document["files"]] == ["train.py"]

    def test_frozen_and_tied(self, folder):
        (folder / "m.py").write_text(
            "import torch\nfrom torch import nn\n"
            "def f():\n"
            "    m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))\n"
            "    m[1].weight = m[0].weight\n"
            "    m[2].bias.requires_grad_(False)\n"
            "    return m\n"
        )
        document = describe(problem_of("m.py:f"))
        assert (
            document["parameters"],
            document["parameters_total"],
            document["frozen"],
            document["tied"],
        ) == (21, 23, 2, 1)
        assert document["synthetic"] is True


class TestHubs:
    @pytest.fixture
    def bert(self, folder):
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=30,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            num_labels=3,
        )
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        model.save_pretrained(folder / "bert")
        return model

    def test_hugging_face_from_a_folder(self, bert, folder):
        tokens = torch.arange(12).reshape(2, 6)
        torch.save({"input_ids": tokens, "labels": torch.tensor([0, 2])}, "b.pt")
        problem = problem_of("hf:./bert", data="b.pt")
        assert type(problem.model).__name__ == "BertForSequenceClassification"
        assert problem.loss_name == "output"
        assert problem.model.config._attn_implementation == "eager"
        with torch.no_grad():
            assert torch.equal(problem.model(tokens).logits, bert.eval()(tokens).logits)
        files = {file["path"].rpartition("/")[2] for file in problem.source["files"]}
        assert files == {"b.pt", "config.json", "model.safetensors"}
        assert problem_of("hf:./bert", data="b.pt", loss="ce").loss_name == "ce"
        assert problem_of("hf:./bert").source["synthetic"]
        assert describe(problem)["input_shape"] == {"input_ids": [6]}

    def test_remote_code_needs_trust(self, bert, folder):
        config = json.loads((folder / "bert" / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
        (folder / "bert" / "config.json").write_text(json.dumps(config))
        (folder / "bert" / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
        error = refused("hf:./bert")
        assert isinstance(error, UntrustedFileError)
        assert "evil.Model" in str(error)
        assert not (folder / "ran").exists()

    def test_hugging_face_errors(self, folder):
        pytest.importorskip("transformers")
        assert "does not exist" in str(refused("hf:./none"))
        (folder / "d").mkdir()
        assert "no config.json" in str(refused("hf:./d"))
        (folder / "d" / "config.json").write_text("{")
        assert refused("hf:./d").exit_code == 3
        (folder / "d" / "config.json").write_text('{"model_type": "no-such-type"}')
        assert refused("hf:./d").exit_code == 3

    @pytest.mark.parametrize(
        ("spec", "package"),
        [("hf:x/y", "transformers"), ("timm:x", "timm"), ("torchvision:x", "torchvision")],
    )
    def test_packages_that_are_not_there(self, spec, package, monkeypatch):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.models", None)
        error = refused(spec)
        assert "pip install" in str(error)
        assert error.exit_code == 3

    def test_timm_and_torchvision(self, monkeypatch):
        seen = []

        def create(name, **options):
            seen.append((name, options))
            if name == "unknown":
                raise ValueError("Unknown model unknown")
            return nn.Linear(4, options.get("num_classes", 2))

        monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create))
        models = types.SimpleNamespace(get_model=create)
        monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
        monkeypatch.setitem(sys.modules, "torchvision.models", models)
        assert problem_of("timm:vit.tiny(num_classes=3)").n_parameters == 15
        assert problem_of("torchvision:resnet(num_classes=3)").n_parameters == 15
        assert seen == [
            ("vit.tiny", {"pretrained": False, "num_classes": 3}),
            ("resnet", {"weights": None, "num_classes": 3}),
        ]
        assert refused("timm:unknown").exit_code == 2
        assert "Unknown model" in str(refused("torchvision:unknown"))


def test_running_out_of_memory_is_said(monkeypatch):
    def exhausted(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(nn.Linear, "forward", exhausted)
    problem = Problem(nn.Linear(2, 1), [(torch.ones(3, 2), torch.zeros(3, 1))], "mse")
    with pytest.raises(LoadError, match="does not fit the memory of cpu"):
        check(problem)


def test_looking_for_a_loss_leaves_the_model_as_it_was(folder):
    (folder / "m.py").write_text(
        "import torch\nfrom torch import nn\nX = torch.randn(6, 3)\n"
        "def setup(): return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), (X, torch.arange(6) % 2), None\n"
    )
    problem = problem_of("m.py:setup")
    assert problem.loss_name == "ce"
    assert int(problem.model[0].num_batches_tracked) == 0
    assert problem.model.training


def test_an_output_with_a_loss_is_used_as_it_is(folder):
    (folder / "m.py").write_text(
        "import torch\nfrom types import SimpleNamespace\n"
        "class M(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(3, 2)\n"
        "    def forward(self, x, labels=None):\n"
        "        z = super().forward(x)\n"
        "        loss = None if labels is None else torch.nn.functional.cross_entropy(z, labels)\n"
        "        return SimpleNamespace(logits=z, loss=loss)\n"
        "def setup(): return M(), {'x': torch.ones(4, 3), 'labels': torch.zeros(4, dtype=torch.int64)}, None\n"
    )
    problem = problem_of("m.py:setup")
    assert problem.loss_name == "output"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(problem.evaluate(problem.data[0]), forward(problem.model, problem.data[0]).loss)


def test_that_an_evaluation_rewrites_parameters_is_known_of_what_is_loaded(tmp_path):
    """The first evaluation tells, while it is loaded; notes that come later, and another device, leave that known."""
    (tmp_path / "table.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def setup():\n"
        "    torch.manual_seed(0)\n"
        "    model = nn.Sequential(nn.Embedding(6, 3, max_norm=0.5), nn.Flatten(), nn.Linear(6, 2))\n"
        "    return model, [(torch.randint(6, (5, 2)), torch.randint(2, (5,)))], 'ce'\n"
    )
    problem = load_problem(ProblemRequest(model=f"{tmp_path / 'table.py'}:setup"))
    assert problem.rewritten == ("0.weight",)
    assert problem.like(notes=("more",)).rewritten == ("0.weight",)
    assert load._moved(problem, torch.device("cpu")).rewritten == ("0.weight",)
    assert examine(HessianOperator(problem)).point.kind == "rewritten"
