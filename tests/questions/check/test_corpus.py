"""The networks that `check` is judged on are what they are said to be: broken ones do not train, healthy ones do.

Each broken one has a twin without the defect, which trains. Some in each test run, all with HESSDIAG_FUZZ=long, in two minutes.
"""

import pytest
import torch
from torch import nn

from hessdiag.problem.load import load_problem
from hessdiag.problem.loading.request import ProblemRequest
from tests.fuzz.length import LONG
from tests.questions.check.corpus import data
from tests.questions.check.corpus.corpus import BROKEN, HEALTHY
from tests.questions.check.corpus.training import optimizer, skill, trained, trains

CASES = BROKEN | HEALTHY
QUICK = (
    "tabular_dead_by_bias",
    "regression_one_layer_large",
    "autoencoder_layers_alike",
    "regression_mean_1000",
    "masks_sigmoid_before_bce",
    "bottleneck_data_of_the_code",
    "text_sgd_1e6",
    "half_overflow",
    "relu_he",
    "lstm_language",
    "regression_tanh",
    "one_against_nine",
    "relu_to_zero_loss",
    "low_rank_change",
)


@pytest.mark.parametrize("name", CASES if LONG else QUICK)
def test_a_case_trains_where_it_is_healthy_and_not_where_it_is_broken(name):
    outcome = trained(CASES[name])
    assert outcome.is_as_stated(CASES[name]), outcome


@pytest.mark.parametrize("name", BROKEN if LONG else [name for name in QUICK if name in BROKEN])
def test_without_its_defect_a_broken_one_trains(name):
    assert trains(BROKEN[name].mended)


def test_there_are_as_many_as_the_figures_are_of():
    assert len(BROKEN) >= 24
    assert len(HEALTHY) >= 40
    assert {case.state for case in HEALTHY.values()} == {"fresh", "half-trained", "trained", "pretrained"}
    assert all(case.causes for case in BROKEN.values())
    assert not any(case.causes for case in HEALTHY.values())


def test_layers_at_fault_are_in_the_network():
    for case in BROKEN.values():
        model, _, _ = case.make()
        names = {name for name, _ in model.named_modules()}
        assert names >= set(case.layers), case.name


def test_a_seed_makes_the_same_network_and_leaves_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    weights = [BROKEN["conv_cold_softmax"].make(seed)[0][0].weight for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_case_is_a_model_of_the_command_line():
    spec = "tests.questions.check.corpus.broken_units:tanh_pushed_by_bias"
    problem = load_problem(ProblemRequest(spec, device="cpu"))
    twin = load_problem(ProblemRequest(f"{spec}(mended=True)", device="cpu"))
    biases = [float(one.model[2].bias.detach().abs().mean()) for one in (problem, twin)]
    assert biases[0] == 12
    assert biases[1] < 1
    assert problem.n_parameters == 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert len(problem.data) == 16


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # of four answers to (0, 0, 1, 2) three are right, half are by chance
        (data.Data(*2 * (torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 2])), "classes"), 0.5),
        (data.Data(*2 * (torch.tensor([-1.0, 1, -1, 2]), torch.tensor([0.0, 1, 0, 0])), "binary"), 0.0),
        # an error of 1/4 against a variance of 1
        (data.Data(*2 * (torch.tensor([[0.5], [1.5]]), torch.tensor([[0.0], [2.0]])), "real"), 0.75),
    ],
)
def test_skill_is_what_is_gained_over_the_best_constant(found, expected):
    assert skill(nn.Identity(), found) == pytest.approx(expected)


def test_an_optimizer_is_made_as_it_is_spelt():
    made = optimizer("adam(eps=1e-2, betas=(0.8, 0.9))", 0.5, [nn.Parameter(torch.zeros(1))])
    assert isinstance(made, torch.optim.Adam)
    assert (made.defaults["lr"], made.defaults["eps"], made.defaults["betas"]) == (0.5, 1e-2, (0.8, 0.9))
