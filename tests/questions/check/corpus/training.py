"""Whether a case trains: with its own optimizer, on its own batches in turn, judged by data that it never saw.

Skill is what is gained over the best constant answer: of classes and bits (accuracy - commonest) / (1 - commonest), of
real targets 1 - squared error / variance; 0 is chance, 1 is perfect. LEARNT is what a healthy network that is not
trained yet must reach in its steps, and a trained one have; IN_VAIN is what a broken one may reach at most.
"""

import ast
from dataclasses import dataclass

import torch
from torch import nn

from hessdiag.problem.losses.loss import NAMED
from tests.questions.check.corpus.case import Case

LEARNT, IN_VAIN = 0.6, 0.3
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


@dataclass(frozen=True)
class Outcome:
    """What training made of a case: skill and loss before and after."""

    before: float
    after: float
    first_loss: float
    last_loss: float

    def is_as_stated(self, case: Case) -> bool:
        """Whether it trains where it is healthy, and does not where it is broken."""
        if case.is_broken:
            return self.after <= IN_VAIN
        return (self.before if case.state == "trained" else self.after) >= LEARNT


def optimizer(spec, lr, parameters):
    """The optimizer that a case names: "adam(eps=1e-2)"."""
    call = ast.parse(spec if "(" in spec else f"{spec}()", mode="eval").body
    settings = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return OPTIMIZERS[call.func.id](parameters, lr=lr, **settings)


def loss_function(loss):
    """A loss by its name, or the user's own."""
    return NAMED[loss].function if isinstance(loss, str) else loss


def fit(model, data, loss, steps, lr=3e-3, spec="adam"):
    """The model after some steps on the batches in turn, in the modes that it came in; the losses."""
    function = loss_function(loss)
    stepper = optimizer(spec, lr, [p for p in model.parameters() if p.requires_grad])
    batches, losses = data.batches, []
    for step in range(steps):
        x, y = batches[step % len(batches)]
        value = function(model(x), y)
        stepper.zero_grad()
        value.backward()
        stepper.step()
        losses.append(float(value.detach()))
    return model, losses


@torch.no_grad()
def skill(model: nn.Module, data) -> float:
    """What a model gained over the best constant answer on data that it never saw, in evaluation mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    output, truth = model(data.test_x).float(), data.test_y
    for module, training in modes:
        module.training = training
    if not bool(output.isfinite().all()):
        return 0.0
    if data.task == "real":
        truth = truth.float()
        error = (output.reshape(truth.shape) - truth).square().mean()
        return float(1 - error / (truth - truth.mean(0)).square().mean())
    if data.task == "binary":
        answer, truth = (output.reshape(truth.shape) > 0).long(), (truth > 0.5).long()
    else:
        answer = output.argmax(-1 if output.shape[:-1] == truth.shape else 1)
    commonest = float(truth.flatten().bincount().max()) / truth.numel()
    return (float((answer == truth).float().mean()) - commonest) / (1 - commonest)


def trained(case: Case, seed: int = 0) -> Outcome:
    """Train a case as it says."""
    model, data, loss = case.parts(seed)
    before = skill(model, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        _, losses = fit(model, data, loss, case.steps, case.lr, case.optimizer)
    return Outcome(before, skill(model, data), losses[0], losses[-1])


def trains(case: Case, seed: int = 0) -> bool:
    """Whether a case, as it is and with its own settings, learns what there is to learn."""
    outcome = trained(case, seed)
    return (outcome.before if case.state == "trained" else outcome.after) >= LEARNT
