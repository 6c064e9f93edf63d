"""Models with a head and batches with labels, as Hugging Face's Trainer takes them, from folder to eigenvalue."""

import pytest
import torch

import hessdiag
from hessdiag.problem.load import ProblemRequest, load_problem

transformers = pytest.importorskip("transformers")

SCRIPT = """
import torch

def batches():
    generator = torch.Generator().manual_seed(0)
    draw = lambda high, *size: torch.randint(high, size, generator=generator)
    return [
        {"input_ids": draw(16, n, 6), "attention_mask": torch.ones(n, 6).long(), "labels": draw(3, n)} for n in (5, 3)
    ]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=16, max_position_embeddings=8, num_labels=3, **sizes)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained("bert")
    (tmp_path / "data.py").write_text(SCRIPT)
    return tmp_path


def test_the_models_own_loss_is_that_of_plain_cross_entropy(here):
    problem = load_problem(ProblemRequest("hf:./bert", data="data.py:batches", dtype="float64", device="cpu"))
    assert problem.loss_name == "output"
    assert problem.batch_weights == (5 / 8, 3 / 8)
    assert problem.loss_of_output.kind == "ce"

    def by_hand(model, batch):
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return torch.nn.functional.cross_entropy(model(**inputs).logits, batch["labels"])

    plain = hessdiag.Problem(problem.model, data=problem.data, objective=by_hand)
    assert abs(problem.value() - plain.value()) <= 1e-12
    v = torch.randn(problem.n_parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (hessdiag.HessianOperator(one) @ v for one in (problem, plain))
    assert (ours - theirs).norm() <= 1e-12 * theirs.norm()


def test_a_lightning_module_around_it_is_measured_alike(here):
    lightning = pytest.importorskip("lightning")

    class Lit(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, batch_idx):
            return self.model(**batch).loss

    problem = load_problem(ProblemRequest("hf:./bert", data="data.py:batches", dtype="float64", device="cpu"))
    step = hessdiag.Problem(Lit(problem.model), data=problem.data)
    assert step.loss_of_output.kind == "ce"
    assert step.batch_weights == problem.batch_weights
    v = torch.randn(problem.n_parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (hessdiag.HessianOperator(one) @ v for one in (step, problem))
    assert (ours - theirs).norm() <= 1e-12 * theirs.norm()
