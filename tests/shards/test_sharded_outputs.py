"""Self-checks of sharded problems, and their Gauss-Newton and Fisher products, on one rank and on several."""

import json
import os
import subprocess

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.curvature.checks import examine
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.point import words
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import sharded
from tests import preloaded

F64 = torch.float64

RANKS = """
import json, sys
import torch
from torch import nn
from hessdiag.curvature.checks import examine
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.linalg.spread import piece_of, whole_of
from hessdiag.machine.ranks import ranks
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import sharded
from hessdiag.shards.vocabulary import streamed


def mlp(loss, samples):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    y = torch.arange(samples) % 3 if loss == "ce" else torch.randn(samples, 3).double()
    return Problem(model, [(torch.randn(samples, 5).double(), y)], loss)


def several():
    problem = mlp("ce", 5)
    return Problem(problem.model, [*problem.data, *mlp("ce", 3).data], "ce")


def conv():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    return Problem(model.eval(), [(torch.randn(3, 2, 4, 4).double(), torch.arange(3))], "ce")


def gpt(samples):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=13, n_positions=6, n_embd=8, n_layer=2, n_head=2)
    tokens = torch.randint(13, (samples, 6))
    return Problem(GPT2LMHeadModel(config).double().eval(), [{"input_ids": tokens, "labels": tokens}], "output")


found = {}
problems = {"mse": mlp("mse", 7), "ce": mlp("ce", 3), "several": several(), "conv": conv()}
problems |= {"gpt": gpt(8), "gpt, fewer samples than ranks": gpt(3), "gpt, head streamed": gpt(3)}
kinds = {
    "hessian": lambda p: HessianOperator(p, check=False),
    "ggn": GaussNewtonOperator,
    "fisher": FisherOperator,
    "empirical": lambda p: FisherOperator(p, empirical=True),
}
for name, problem in problems.items():
    if name.endswith("streamed"):
        streamed.LEAST, streamed.CLASSES = 100, 1
    own = sharded(problem)
    for kind, operator in kinds.items():
        if kind == "empirical" and name.startswith("gpt"):
            continue
        A, plain = operator(own), operator(problem)
        torch.manual_seed(1)
        V = torch.randn(problem.n_parameters, 3, dtype=torch.float64)
        piece = piece_of(V, A.spread)
        for got, want in ((A @ piece, plain @ V), ((A @ piece[:, 0])[:, None], (plain @ V[:, 0])[:, None])):
            apart = float((whole_of(got, A.spread) - want).norm() / want.norm())
            found[f"{name} {kind}"] = max(apart, found.get(f"{name} {kind}", 0.0))
        found[f"{name} {kind} engine"] = A.engine
    checks = examine(HessianOperator(own, check=False))
    found[f"{name} checks"] = [checks.checks["hvp_symmetry"], checks.checks["hvp_finite_difference"], checks.failed]
if ranks()[0] == 0:
    json.dump(found, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "ranks.py").write_text(RANKS)
    found = {}
    with preloaded.programs(os.environ | {"OMP_NUM_THREADS": "1"}) as programs:
        for size in (1, 2, 4):
            launch = [programs / "python", "-m", "torch.distributed.run", "--standalone", "--no-python"]
            command = [*launch, "--nproc-per-node", str(size), programs / "python", "ranks.py", f"{size}.json"]
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, run.stderr[-3000:]
            found[size] = json.loads((folder / f"{size}.json").read_text())
    return found


@pytest.mark.parametrize("size", [1, 2, 4])
def test_products_through_the_output_are_those_of_the_whole_model(on_ranks, size):
    products = {name: error for name, error in on_ranks[size].items() if not name.endswith(("checks", "engine"))}
    assert len(products) == 25
    single = {name for name in products if name.startswith("gpt") and name.endswith("hessian")}  # its loss is float32
    assert max(error for name, error in products.items() if name not in single) <= 1e-12, products
    assert max(products[name] for name in single) <= 1e-6, products


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_was_done_with_logits_is_said(on_ranks, size):
    said = {name: text.partition("; ")[2] for name, text in on_ranks[size].items() if name.endswith("engine")}
    own = "the model's own loss, which is cross-entropy of the next tokens"
    whole = "logits of the head whole, for this matrix is taken through them"
    assert said["gpt, head streamed hessian engine"] == "cross-entropy of the head in chunks of the vocabulary"
    assert said["gpt, head streamed ggn engine"] == said["gpt, head streamed fisher engine"] == f"{whole}; {own}"
    assert (said["gpt hessian engine"], said["gpt ggn engine"]) == ("", own)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_sharded_products_pass_their_checks(on_ranks, size):
    for name, value in on_ranks[size].items():
        if name.endswith("checks"):
            symmetry, difference, failed = value
            single = name.startswith("gpt")  # whose own loss is computed in float32
            assert symmetry <= (1e-9 if single else 1e-12), name
            assert 0 < difference <= (1e-3 if single else 1e-8), name
            assert not failed, name


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
