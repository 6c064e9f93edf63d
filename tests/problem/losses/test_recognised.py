"""The loss that a model computes itself, as a function of its logits: brute force on tiny models, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.overrides import TorchFunctionMode

import hessdiag
from hessdiag import GaussNewtonOperator, Problem
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.errors import SpecError
from tests.once import once_differentiable
from tests.problem.loading.test_own_loss import MODELS

transformers = pytest.importorskip("transformers")

BATCH, LENGTH = 2, 5
TINY = {
    "gpt2": {"vocab_size": 12, "n_embd": 4, "n_positions": 8},
    "llama": {"vocab_size": 12, "hidden_size": 4, "intermediate_size": 6},
    "classes": {"vocab_size": 12, "hidden_size": 4, "intermediate_size": 6, "max_position_embeddings": 8},
    "vit": {"hidden_size": 4, "intermediate_size": 6},
}


class Wide(TorchFunctionMode):
    """Casts of float64 to float32 left out, so that the oracle is one of float64 where a model casts inside."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype is torch.float64:
            if function is torch.Tensor.float:
                return args[0]
            args = tuple(torch.float64 if item is torch.float32 else item for item in args)
            kwargs = {name: torch.float64 if item is torch.float32 else item for name, item in kwargs.items()}
        return function(*args, **kwargs)


def tiny(name, **options):
    kind, config, usual = MODELS[name]
    made = getattr(transformers, config)(**{**usual, **TINY.get(name, TINY["classes"]), **options})
    made._attn_implementation = "eager"
    torch.manual_seed(3)
    model = getattr(transformers, kind)(made).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tokens(seed=0):
    return torch.randint(3, 12, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed))


def ignoring(labels, *places):
    labels = labels.clone()
    for place in places:
        labels[place] = -100
    return labels


def shifted(logits, labels):
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def plain(logits, labels):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


CASES = {
    "gpt2": ("gpt2", {}, {"input_ids": tokens(), "labels": ignoring(tokens(), (0, 3), (1, 1))}, shifted),
    "llama": ("llama", {}, {"input_ids": tokens(), "labels": tokens()}, shifted),
    "classes": ("classes", {}, {"input_ids": tokens(), "labels": torch.tensor([2, 0])}, plain),
    "column": ("classes", {}, {"input_ids": tokens(), "labels": torch.tensor([[2], [0]])}, plain),
    "tokens": ("tokens", {}, {"input_ids": tokens(), "labels": ignoring(tokens(1) % 5, (1, 0))}, plain),
    "masked": ("masked", {}, {"input_ids": tokens(), "labels": ignoring(tokens(), 0)}, plain),
    "regression": (
        "regression",
        {},
        {"input_ids": tokens(), "labels": torch.tensor([0.5, -1.0]).double()},
        lambda z, y: (z.flatten() - y).square().mean(),
    ),
    "several": (
        "several",
        {},
        {"input_ids": tokens(), "labels": torch.tensor([[1.0, 0, 1], [0, 0, 1]]).double()},
        lambda z, y: (F.softplus(z) - z * y).mean(),
    ),
    "vit": (
        "vit",
        {"image_size": 16},
        {"pixel_values": torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double(), "labels": torch.tensor([3, 1])},
        plain,
    ),
}  # fmt: skip


def brute_force(model, batch, function):
    """G of one batch, from a Jacobian row by row and a dense Hessian of the written-out loss."""
    parameters = list(model.parameters())
    logits = model(**batch).logits
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)])
        for entry in logits.flatten()
    ]  # fmt: skip
    J = torch.stack(rows)
    z = logits.detach().flatten()
    B = torch.autograd.functional.hessian(lambda flat: function(flat.view_as(logits), batch["labels"]), z)
    return J.T @ B @ J


@pytest.mark.parametrize("case", CASES)
def test_the_gauss_newton_matrix_is_that_of_brute_force(case):
    name, options, batch, function = CASES[case]
    model = tiny(name, **options)
    problem = Problem(model, data=[batch], loss="output", reduction="mean")
    with Wide():
        expected = brute_force(model, batch, function)
        V = torch.randn(problem.n_parameters, 3, dtype=torch.float64)
        found = GaussNewtonOperator(problem) @ V
    assert float(expected.norm()) > 0.1
    assert float((found - expected @ V).norm()) <= 1e-9 * float((expected @ V).norm())


def test_where_a_model_casts_to_float32_inside_its_rounding_is_all_that_differs():
    name, options, batch, function = CASES["llama"]
    model = tiny(name, **options)
    problem = Problem(model, data=[batch], loss="output", reduction="mean")
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    expected = brute_force(model, batch, function) @ v
    assert float((GaussNewtonOperator(problem) @ v - expected).norm()) <= 1e-5 * float(expected.norm())
    found = hessdiag.spectrum(problem, operator="ggn")
    assert found.status == "ok"
    assert found.point.computes_in == "float32"
    assert found.check_tolerance == 1e-2


def test_batches_weigh_by_the_labels_that_count():
    model = tiny("gpt2")
    batches = [
        {"input_ids": tokens(seed), "labels": labels} for seed, labels in ((0, ignoring(tokens(0), 1)), (1, tokens(1)))
    ]
    problem = Problem(model, data=batches, loss="output", reduction="mean")
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    first, second = (brute_force(model, batch, shifted) @ v for batch in batches)
    expected = (4 * first + 8 * second) / 12
    assert float((GaussNewtonOperator(problem) @ v - expected).norm()) <= 1e-9 * float(expected.norm())


def test_blocks_split_and_the_fisher_matrix_is_there():
    _, _, batch, function = CASES["classes"]
    model = tiny("classes")
    problem = Problem(model, data=[batch], loss="output", reduction="mean")
    found = hessdiag.blocks(problem)
    expected = brute_force(model, batch, function)
    assert found.split_missing is None
    assert found.loss_in_output == "convex"
    assert found.gauss_newton_norm == pytest.approx(float(expected.norm()), rel=1e-9)
    assert "the model's own loss, which is cross-entropy of its logits" in found.engine
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    assert float((FisherOperator(problem) @ v - expected @ v).norm()) <= 1e-9 * float((expected @ v).norm())


def test_pixels_are_those_of_stretched_logits():
    kind, config, options = MODELS["segments"]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**options)).double().eval()
    batch = {"pixel_values": torch.randn(1, 3, 32, 32).double(), "labels": torch.randint(3, (1, 32, 32))}
    found = Problem(model, data=[batch], loss="output").loss_of_output
    assert found is not None
    assert found.kind == "ce"


class Own(nn.Module):
    """A model whose loss is any function of its logits, labels and itself; it bears the names of cross-entropy."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4).double()
        self.cross_entropy = loss

    def forward(self, x, labels):
        logits = self.layer(x)
        return SimpleNamespace(loss=self.cross_entropy(self, logits, labels), logits=logits)


def cross_entropy(z, y):
    return -z.softmax(-1)[torch.arange(len(z)), y].log().mean()


def slope(z, y):
    return (z.softmax(-1) - F.one_hot(y, z.shape[-1])) / len(z)


Fused = once_differentiable("Fused", cross_entropy, slope)


def penalty(own, z, y):
    return F.cross_entropy(z, y) + 1e-3 * own.layer.weight.square().sum()


def hidden_penalty(own, z, y):
    """Worth nothing and without a gradient in the logits, but one in the weights."""
    weight = own.layer.weight.sum()
    return F.cross_entropy(z, y) + weight - weight.detach()


def same_value_and_gradient(own, z, y):
    value = F.cross_entropy(z, y)
    (slope,) = torch.autograd.grad(value, z, create_graph=True)
    return value.detach() + (slope.detach() * (z - z.detach())).sum() + (z - z.detach()).square().sum()


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (lambda own, z, y: F.cross_entropy(z, y, label_smoothing=0.05), "it is 1.*, not"),
        (lambda own, z, y: F.cross_entropy(z, y, reduction="sum"), "it is 1.*, not"),
        (lambda own, z, y: F.cross_entropy(z.detach(), y) + 0 * z.sum(), "its gradient in the logits differs by 100 %"),
        (lambda own, z, y: F.cross_entropy(own.layer.weight, y[:4] % 3), "it is not computed from the logits"),
        (penalty, "parts of it come from elsewhere than the logits"),
        (hidden_penalty, "parts of it come from elsewhere than the logits"),
        (same_value_and_gradient, "its curvature in the logits differs"),
    ],
)
def test_what_is_no_cross_entropy_is_not_taken_for_it(loss, why):
    batch = {"x": torch.randn(6, 3).double(), "labels": torch.tensor([0, 1, 2, 3, 0, 1])}
    problem = Problem(Own(loss), data=[batch], loss="output", reduction="mean")
    with pytest.raises(SpecError, match=why) as caught:
        GaussNewtonOperator(problem)
    assert "no known function of its logits" in caught.value.what
    found = hessdiag.blocks(problem)
    assert found.gauss_newton is None
    assert found.split_missing is not None
    assert "no known function of its logits" in found.split_missing


def test_one_batch_of_several_is_enough_to_refuse():
    def sometimes(own, z, y):
        return F.cross_entropy(z, y) * (2 if len(y) == 2 else 1)

    batches = [{"x": torch.randn(n, 3).double(), "labels": torch.arange(n)} for n in (3, 2)]
    assert Problem(Own(sometimes), data=batches[:1], loss="output").loss_of_output is not None
    assert Problem(Own(sometimes), data=batches, loss="output").loss_of_output is None


def test_squares_of_no_residual_are_told_apart_by_their_curvature():
    batch = {"x": torch.randn(6, 3).double()}
    for factor, known in ((1, True), (2, False)):
        model = Own(lambda own, z, y, factor=factor: factor * F.mse_loss(z, y))
        labels = model.layer(batch["x"]).detach()
        problem = Problem(model, data=[{**batch, "labels": labels}], loss="output")
        assert (problem.loss_of_output is not None) == known


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_of_other_dtypes(dtype):
    batch = {"x": torch.randn(6, 3).to(dtype), "labels": torch.tensor([0, 1, 2, 3, 0, 1])}
    for smoothing, known in ((0.0, True), (0.1, False)):
        model = Own(lambda own, z, y, s=smoothing: F.cross_entropy(z.float(), y, label_smoothing=s)).to(dtype)
        assert (Problem(model, data=[batch], loss="output").loss_of_output is not None) == known


def test_a_loss_that_is_differentiable_only_once_is_known_by_value_and_gradient():
    batch = {"x": torch.randn(6, 3).double(), "labels": torch.tensor([0, 1, 2, 3, 0, 1])}
    model = Own(lambda own, z, y: Fused.apply(z, y))
    problem = Problem(model, data=[batch], loss="output", reduction="mean")
    same = Problem(model.layer, data=[(batch["x"], batch["labels"])], loss="ce")
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    found, expected = (GaussNewtonOperator(each, check=False) @ v for each in (problem, same))
    assert float((found - expected).norm()) <= 1e-12 * float(expected.norm())
