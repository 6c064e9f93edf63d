"""An optimizer that is raced with the settings of a checkpoint."""

import torch

from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.contenders import entrants


def test_a_checkpoints_learning_rate_is_not_searched_for(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    x = torch.randn(16, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0123, weight_decay=0.25)
    model(x).square().mean().backward()
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "ckpt.pt")
    problem = Problem(model, data=[(x, x[:, :1])], loss="mse")
    (entrant,) = entrants(problem, f"{tmp_path / 'ckpt.pt'}#optimizer", None, None)
    (group,) = entrant.recipe.build(problem.model).param_groups
    assert (entrant.rates, entrant.title) == ((), "AdamW")
    assert (group["lr"], group["weight_decay"]) == (0.0123, 0.25)
