"""Self-checks of sharded problems, and their Gauss-Newton and Fisher products, on one rank and on several."""

from functools import cache, partial
from unittest import mock

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.curvature.checks import examine
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.point import words
from hessdiag.linalg.spread import piece_of, whole_of
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import sharded
from hessdiag.shards.vocabulary import streamed
from tests.shards import sharded_cases
from tests.shards.forks import on_ranks, once

F64 = torch.float64

SIZES = (1, 2, 4)


def _small(loss, samples):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    y = torch.arange(samples) % 3 if loss == "ce" else torch.randn(samples, 3).double()
    return Problem(model, [(torch.randn(samples, 5).double(), y)], loss)


def _several():
    problem = _small("ce", 5)
    return Problem(problem.model, [*problem.data, *_small("ce", 3).data], "ce")


def _conv():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    return Problem(model.eval(), [(torch.randn(3, 2, 4, 4).double(), torch.arange(3))], "ce")


def _gpt(samples):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=13, n_positions=6, n_embd=8, n_layer=2, n_head=2)
    tokens = torch.randint(13, (samples, 6))
    return Problem(GPT2LMHeadModel(config).double().eval(), [{"input_ids": tokens, "labels": tokens}], "output")


CASES = {
    "mse": lambda: _small("mse", 7),
    "ce": lambda: _small("ce", 3),
    "several": _several,
    "conv": _conv,
    "resnet": lambda: sharded_cases.problem("resnet"),
    "gpt": lambda: _gpt(8),
    "gpt, fewer samples than ranks": lambda: _gpt(3),
    "gpt, head streamed": lambda: _gpt(3),
}
# Of four ranks what has to do with how many there are: fewer samples than ranks, several batches, logits.
OF_FOUR = ("ce", "several", "gpt", "gpt, head streamed")
PAIRS = [(case, size) for case in CASES for size in SIZES if size < 4 or case in OF_FOUR]
KINDS = {
    "hessian": lambda problem: HessianOperator(problem, check=False),
    "ggn": GaussNewtonOperator,
    "fisher": FisherOperator,
    "empirical": lambda problem: FisherOperator(problem, empirical=True),
}


@cache
def _whole(case):
    """A problem, vectors, and each matrix times them; ranks are forked with all of it."""
    problem = CASES[case]()
    V = torch.randn(problem.n_parameters, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    kinds = {kind: make for kind, make in KINDS.items() if kind != "empirical" or problem.loss_name != "output"}
    return problem, V, {kind: make(problem) @ V for kind, make in kinds.items()}


def _measured(case):
    """How far products are from those of the whole model, how they were made, and what the checks say."""
    if case.endswith("streamed"):
        with mock.patch.multiple(streamed, LEAST=100, CLASSES=1):
            return _compared(*_whole(case))
    return _compared(*_whole(case))


def _compared(problem, V, expected):
    own, found = sharded(problem), {}
    for kind, want in expected.items():
        A = KINDS[kind](own)
        piece = piece_of(V, A.spread)
        pairs = ((A @ piece, want), ((A @ piece[:, 0])[:, None], want[:, :1]))
        found[kind] = max(float((whole_of(got, A.spread) - want).norm() / want.norm()) for got, want in pairs)
        found[f"{kind} engine"] = A.engine
    checks = examine(HessianOperator(own, check=False))
    return found | {"checks": [*checks.checks.values(), checks.failed]}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each number of ranks measures, by case."""
    return once(tmp_path_factory, "outputs", _of_all)


def _of_all():
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.resnet.modeling_resnet  # noqa: F401

    found = {}
    for case, size in PAIRS:
        _whole(case)
        found[size, case] = on_ranks(size, partial(_measured, case))[0]
    return found


SINGLE = ("gpt", "gpt, fewer samples than ranks", "gpt, head streamed")  # whose own loss is computed in float32


@pytest.mark.parametrize(("case", "size"), PAIRS)
def test_products_are_those_of_the_whole_model(found, case, size):
    errors = {kind: found[size, case][kind] for kind in KINDS if kind in found[size, case]}
    assert len(errors) == (3 if case in SINGLE else 4)
    assert errors.pop("hessian") <= (1e-6 if case in SINGLE else 1e-12)
    assert max(errors.values()) <= 1e-12, errors


@pytest.mark.parametrize(("case", "size"), PAIRS)
def test_sharded_products_pass_their_checks(found, case, size):
    symmetry, difference, failed = found[size, case]["checks"]
    assert symmetry <= (1e-9 if case in SINGLE else 1e-12)
    assert 0 < difference <= (1e-3 if case in SINGLE else 1e-8)
    assert not failed


@pytest.mark.parametrize("size", SIZES)
def test_what_was_done_with_logits_is_said(found, size):
    streams, whole = (
        {kind: found[size, case][f"{kind} engine"].partition("; ")[2] for kind in ("hessian", "ggn", "fisher")}
        for case in ("gpt, head streamed", "gpt")
    )
    own = "the model's own loss, which is cross-entropy of the next tokens"
    through = f"logits of the head whole, for this matrix is taken through them; {own}"
    chunks = "cross-entropy of the head in chunks of the vocabulary"
    assert streams == {"hessian": chunks, "ggn": through, "fisher": through}
    assert whole == {"hessian": "", "ggn": own, "fisher": own}


def _mlp(activation, dtype=F64, loss="ce", width=20):
    torch.manual_seed(0)
    layers = [nn.Linear(4, width), activation, nn.Linear(width, width), activation, nn.Linear(width, 3)]
    return Problem(nn.Sequential(*layers).to(dtype), [(torch.randn(9, 4, dtype=dtype), torch.arange(9) % 3)], loss)


def _planted(problem, plant):
    operator = HessianOperator(sharded(problem), check=False)
    raw = operator.raw
    operator.raw = lambda V: plant(raw(V))
    return operator


def test_a_linear_model_has_its_hessian_for_gauss_newton_matrix():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    problem = sharded(Problem(model, [(torch.randn(5, 3).double(), torch.randn(5, 2).double())], "mse"))
    identity = torch.eye(problem.n_parameters, dtype=F64)
    G, H = GaussNewtonOperator(problem) @ identity, HessianOperator(problem) @ identity
    assert torch.allclose(G, H, rtol=0, atol=1e-13)
    assert float(H.abs().max()) > 0.1
    assert float(torch.linalg.eigvalsh(G)[0]) > -1e-12


def test_a_factor_of_two_in_the_product_fails():
    found = examine(_planted(_mlp(nn.Tanh()), lambda HV: 2 * HV))
    assert found.failed
    assert found.checks["hvp_finite_difference"] == pytest.approx(0.5, abs=1e-6)


def test_a_factor_of_two_in_some_rows_is_no_symmetry():
    found = examine(_planted(_mlp(nn.Tanh()), lambda HV: torch.cat([2 * HV[:100], HV[100:]])))
    assert found.failed
    assert found.checks["hvp_symmetry"] > 1e-3


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_factor_of_two_in_the_gradient_fails(dtype):
    problem = _mlp(nn.Tanh(), dtype)

    def twice(model, batch):
        return _Twice.apply(nn.functional.cross_entropy(model(batch[0]), batch[1]))

    found = examine(HessianOperator(sharded(Problem(problem.model, problem.data, objective=twice)), check=False))
    assert found.point.kind == "inconsistent"
    assert found.failed
    assert found.point.error == pytest.approx(0.5, abs=1e-3)


LEFT = {}


class _Leaving(nn.Module):
    """A block whose hidden units another one uses that is not given them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        LEFT["h"] = self.a(x)
        return self.b(torch.tanh(LEFT["h"]))


class _Beside(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + LEFT["h"][:, :3]


def test_a_tensor_that_leaves_a_block_by_a_global_is_in_the_graph():
    torch.manual_seed(0)
    data = [(torch.randn(6, 4).double(), torch.arange(6) % 3)]
    model = _Beside(_Leaving(), nn.Linear(3, 3)).double()
    found = examine(HessianOperator(sharded(Problem(model, data, "ce")), check=False))
    assert found.point.kind == "smooth"
    assert not found.failed


def test_pieces_are_what_they_were():
    problem = sharded(_mlp(nn.ReLU(), torch.float32))
    before = [piece.detach().clone() for piece in problem.pieces]
    operator = HessianOperator(problem, check=False)
    v = torch.ones(problem.layout.own)
    product = operator @ v
    examine(operator)
    assert all(torch.equal(now, then) for now, then in zip(problem.pieces, before, strict=True))
    assert torch.equal(operator @ v, product)  # by the graph that was there before they were moved


def test_pieces_are_put_back_after_an_error():
    problem, calls = _mlp(nn.Tanh()), []

    def fails(model, batch):
        calls.append(1)
        if len(calls) > 8:
            raise RuntimeError("no more")
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    own = sharded(Problem(problem.model, problem.data, objective=fails))
    before = [piece.detach().clone() for piece in own.pieces]
    with pytest.raises(hessdiag.errors.ComputeError):
        examine(HessianOperator(own, check=False))
    assert all(torch.equal(now, then) for now, then in zip(own.pieces, before, strict=True))


def test_steps_that_cross_kinks_are_taken_with_all_choices_held():
    found = examine(HessianOperator(sharded(_mlp(nn.ReLU(), torch.float32, width=300)), check=False))
    assert found.point.kind == "smooth"
    assert found.checks["hvp_finite_difference"] < 1e-3  # 3e-3 at the steps that cross few


def test_units_at_a_kink_are_told():
    problem = _mlp(nn.ReLU())
    with torch.no_grad():
        problem.model[0].weight.zero_(), problem.model[0].bias.zero_()
    found = examine(HessianOperator(sharded(problem), check=False))
    assert found.point.kind == "kink"
    assert {kink.operation for kink in found.point.kinks} == {"relu"}
    assert sum(kink.units for kink in found.point.kinks) >= 9 * 20
    assert not found.failed


def test_what_was_not_searched_for_kinks_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 3)).double()
    data = [(torch.randn(6, 1, 8).double(), torch.arange(6) % 3)]
    found = examine(HessianOperator(sharded(Problem(model, data, "ce")), check=False))
    assert not found.failed
    assert words.unsearched(found.point).says == "Kinks were not searched for in max_pool1d."


def test_products_that_are_not_finite_are_no_hessian():
    found = examine(_planted(_mlp(nn.Tanh()), lambda HV: HV * float("nan")))
    assert found.point.kind == "no_hessian"
    assert found.failed


def test_what_the_linearized_model_says_of_a_factor_of_two():
    problem = sharded(_mlp(nn.Tanh()))
    operator = GaussNewtonOperator(problem, check=False)
    right = operator.compared()
    assert right.error < 1e-7
    assert right.moves
    assert right.curves
    products = operator._summed
    operator._summed = lambda vectors, layer: 2 * products(vectors, layer)
    assert operator.compared().error == pytest.approx(0.5, abs=1e-6)
