"""`training_step` as the loss: equal to the plain loss to rounding, and the module stays as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import hessdiag
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.errors import LoadError, SpecError
from hessdiag.questions.common.constant import best_constant_loss

L = pytest.importorskip("lightning")
torchmetrics = pytest.importorskip("torchmetrics")


class Lit(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 3))
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.outputs, self.last, self.running = [], None, torch.zeros(())

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self(x)
        loss = F.cross_entropy(z, y)
        self.accuracy(z, y.clamp(min=0))
        self.log("accuracy", self.accuracy)
        self.log_dict({"loss": loss})
        self.print("not on the terminal")
        self.logger.experiment.add_scalar("loss", loss)
        self.outputs.append(loss)
        self.last = loss
        self.running += 1
        self.fresh = batch_idx
        return {"loss": loss}


def batches():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 4, generator=generator).double()
    return [(x[:7], torch.tensor([0, 1, 2, 0, 1, 2, 1])), (x[7:], torch.tensor([0, -100, 2]))]


@pytest.fixture
def lit():
    torch.manual_seed(0)
    return Lit().double()


@pytest.mark.parametrize("train", [False, True])
def test_value_and_hessian_are_those_of_the_plain_loss(lit, train):
    step = hessdiag.Problem(lit, data=batches(), train_mode=train)
    plain = hessdiag.Problem(lit, data=batches(), loss="ce", train_mode=train)
    assert step.loss_name == "training_step"
    assert step.batch_weights == plain.batch_weights == (7 / 9, 2 / 9)
    assert abs(step.value() - plain.value()) <= 1e-12
    assert (hessdiag.hessian(step) - hessdiag.hessian(plain)).abs().max() <= 1e-12


def test_hessian_is_that_of_brute_force(lit):
    problem = hessdiag.Problem(lit, data=batches()[:1])
    x, y = batches()[0]
    parameters = dict(lit.named_parameters())
    lit.eval()

    def loss(*values):
        return F.cross_entropy(torch.func.functional_call(lit, dict(zip(parameters, values, strict=True)), (x,)), y)

    blocks = torch.autograd.functional.hessian(loss, tuple(parameters.values()))
    rows = [
        torch.cat([block.reshape(p.numel(), -1) for block in row], 1)
        for row, p in zip(blocks, parameters.values(), strict=True)
    ]
    assert (hessdiag.hessian(problem) - torch.cat(rows)).abs().max() <= 1e-12


def test_the_module_stays_as_it_was(lit, capsys):
    before = {name: value.clone() for name, value in lit.state_dict().items()}
    attributes, of_metric = dict(vars(lit)), {**vars(lit.accuracy), "tp": lit.accuracy.tp.clone()}
    lit.outputs.append("mine")
    hessdiag.eigs(hessdiag.Problem(lit, data=batches()), lowest=1, highest=1)
    assert lit.outputs == ["mine"]
    assert lit.last is None
    assert float(lit.running) == 0
    assert vars(lit).keys() == attributes.keys()
    assert all(torch.equal(value, before[name]) for name, value in lit.state_dict().items())
    assert torch.equal(lit.accuracy.tp, of_metric["tp"])
    assert lit.accuracy._update_count == 0
    assert lit.training
    assert capsys.readouterr().out == ""
    with pytest.raises(RuntimeError, match="not attached"):
        _ = lit.trainer  # Lightning's own again
    assert lit.logger is None


def test_gauss_newton_and_fisher_see_through_the_step(lit):
    step = hessdiag.Problem(lit, data=batches())
    plain = hessdiag.Problem(lit, data=batches(), loss="ce")
    v = torch.randn(step.n_parameters, generator=torch.Generator().manual_seed(1)).double()
    ours, theirs = ((GaussNewtonOperator(problem) @ v) for problem in (step, plain))
    assert (ours - theirs).abs().max() <= 1e-12


class Odd(Lit):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def training_step(self, batch):
        x, y = batch
        z = self(x)
        return {
            "sum": lambda: F.cross_entropy(z, y, reduction="sum"),
            "smoothed": lambda: nn.CrossEntropyLoss(label_smoothing=0.1)(z, y),
            "nll": lambda: F.nll_loss(F.log_softmax(z, 1), y),
            "mse": lambda: F.mse_loss(z, F.one_hot(y.clamp(min=0), 3).to(z)),
            "scaled": lambda: 2 * F.cross_entropy(z, y),
            "raised": lambda: 2 * F.cross_entropy(z, y) + 3.0,
            "doubled": lambda: 2 * F.mse_loss(z, F.one_hot(y.clamp(min=0), 3).to(z)),
            "logged": lambda: F.cross_entropy(z, y) + 0 * batch[0].sum(),
            "divided": lambda: F.cross_entropy(z, y, reduction="sum") / len(y),
            "by batch": lambda: len(y) * F.cross_entropy(z, y),
            "penalized": lambda: 2 * F.cross_entropy(z, y) + 0.1 * self.net[0].weight.square().sum(),
            "two": lambda: F.cross_entropy(z, y) + F.mse_loss(z, torch.zeros_like(z)),
            "squared": lambda: F.cross_entropy(z, y) ** 2,
            "against": lambda: -F.cross_entropy(z, y),
            "own": lambda: (z.logsumexp(1) - z.gather(1, y.clamp(min=0)[:, None])[:, 0]).mean(),
            "target": lambda: F.mse_loss(z, z.flip(0)),
        }[self.form]()


@pytest.mark.parametrize(
    ("form", "kind", "reduction"),
    [
        ("sum", "ce", "sum"),
        ("smoothed", "ce", "mean"),
        ("nll", "nll", "mean"),
        ("mse", "mse", "mean"),
        ("scaled", "ce", "mean"),
        ("doubled", "mse", "mean"),
        ("logged", "ce", "mean"),
        ("raised", None, "unknown"),
        ("divided", None, "unknown"),
        ("by batch", None, "unknown"),
        ("penalized", None, "unknown"),
        ("two", None, "unknown"),
        ("squared", None, "unknown"),
        ("against", None, "unknown"),
        ("own", None, "unknown"),
        ("target", None, "unknown"),
    ],
)
def test_the_loss_is_known_for_what_is_returned(form, kind, reduction):
    problem = hessdiag.Problem(Odd(form).double(), data=batches())
    assert problem.loss_reduction == reduction
    assert (problem.loss_of_output.kind if problem.loss_of_output else None) == kind
    if kind is None:
        assert "training_step does not return" in problem.why_no_loss_of_output
        with pytest.raises(SpecError, match="Gauss-Newton"):
            GaussNewtonOperator(problem)


def test_gauss_newton_of_a_multiple_is_that_of_brute_force():
    lit = Odd("scaled").double()
    (x, y), *_ = batches()
    problem = hessdiag.Problem(lit, data=[(x, y)])
    lit.eval()
    z = lit.net(x)
    rows = [torch.autograd.grad(one, problem.parameters, retain_graph=True) for one in z.flatten()]
    J = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    B = torch.autograd.functional.hessian(lambda flat: 2 * F.cross_entropy(flat.view(7, 3), y), z.detach().flatten())
    found = GaussNewtonOperator(problem) @ torch.eye(problem.n_parameters).double()
    torch.testing.assert_close(found, J.T @ B @ J, rtol=1e-10, atol=1e-14)
    loss = problem.loss_of_output
    assert (loss.is_convex, loss.is_likelihood) == (True, False)
    assert loss.definition == "the training_step, which is 2 times torch's cross_entropy (mean)"
    split = hessdiag.blocks(problem)
    assert split.loss_in_output == "convex"
    assert split.gauss_newton is not None
    plain = hessdiag.Problem(lit, data=[(x, y)], loss="ce")
    assert best_constant_loss(problem) == pytest.approx(2 * best_constant_loss(plain), rel=1e-6)
    assert hessdiag.Problem(Odd("doubled").double(), data=[(x, y)]).loss_of_output.is_likelihood


def test_averaging_makes_the_whole_of_the_parts():
    model = Odd("mse").double()
    x, y = (torch.cat([batch[i] for batch in batches()]) for i in (0, 1))
    model.eval()
    whole = hessdiag.Problem(model, data=[(x, y)])
    parts = hessdiag.Problem(model, data=batches())
    assert abs(whole.value() - parts.value()) <= 1e-12


class Epochs(Lit):
    def training_step(self, batch, batch_idx):
        assert self.trainer.world_size == 1
        assert self.trainer.is_global_zero
        return F.cross_entropy(self(batch[0]), batch[1]) * (1 + self.current_epoch) + 0 * self.global_step


def test_the_epoch_is_that_of_no_training(lit):
    problem = hessdiag.Problem(Epochs().double(), data=batches())
    problem.value()
    assert problem.objective.used == {"current_epoch", "global_step"}
    assert "self.current_epoch, which is 0" in problem.objective.notes[0]


class ByHand(Lit):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Adversaries(Lit):
    def training_step(self, batch, batch_idx, optimizer_idx):
        return self(batch[0]).mean()


class Skips(Lit):
    def training_step(self, batch, batch_idx):
        return None


class Lossless(Lit):
    def training_step(self, batch, batch_idx):
        return {"accuracy": 1.0}


class Scheduled(Lit):
    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean() / self.trainer.estimated_stepping_batches


class Stepless(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (ByHand, "automatic_optimization"),
        (Adversaries, "optimizer_idx"),
        (Skips, "returned None"),
        (Lossless, "without 'loss'"),
        (Scheduled, "self.trainer.estimated_stepping_batches"),
        (Stepless, "no training_step"),
    ],
)
def test_what_is_no_objective_is_refused_in_a_line(kind, says):
    with pytest.raises(LoadError, match=says) as caught:
        hessdiag.Problem(kind().double(), data=batches()).value()
    assert caught.value.hint


def test_a_loss_by_name_is_of_what_forward_returns():
    problem = hessdiag.Problem(ByHand().double(), data=batches(), loss="ce")
    assert problem.loss_name == "ce"


def test_a_batch_that_the_step_empties_is_whole_the_next_time():
    class Pops(Lit):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch.pop("x")), batch.pop("labels"))

    x, y = batches()[0]
    data = [{"x": x, "labels": y}]
    problem = hessdiag.Problem(Pops().double(), data=data)
    assert problem.value() == problem.value()
    assert data[0].keys() == {"x", "labels"}


def test_a_copy_of_the_module_is_measured_like_it(lit):
    assert hessdiag.Problem(copy.deepcopy(lit), data=batches()).value() == hessdiag.Problem(lit, data=batches()).value()


def test_within_training_the_trainer_is_the_real_one():
    seen = []

    class Looks(Lit):
        def training_step(self, batch, batch_idx):
            seen.append(self.trainer.max_epochs)
            return F.cross_entropy(self(batch[0]), batch[1])

        def on_train_batch_end(self, outputs, batch, batch_idx):
            seen.append(hessdiag.Problem(self, data=[batch]).value())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = L.Trainer(max_epochs=3, max_steps=1, accelerator="cpu", **quiet)
    trainer.fit(Looks().double(), torch.utils.data.DataLoader(batches()[:1], batch_size=None))
    assert seen[0] == seen[1] == 3


class Scheduled(Lit):
    """Logs its learning rate, and asks the Trainer for a length of its schedule."""

    def training_step(self, batch, batch_idx):
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        for group in self.optimizers().param_groups:
            self.log("again", group["lr"])
        self.log("last", self.lr_schedulers().get_last_lr()[0])
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        steps = self.trainer.estimated_stepping_batches * self.trainer.max_epochs
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)]


def test_a_learning_rate_may_be_logged_and_a_schedule_ask_for_its_length():
    torch.manual_seed(0)
    model = Scheduled().double()
    problem = hessdiag.Problem(model, data=batches())
    assert problem.value() == hessdiag.Problem(model, data=batches(), loss="ce").value()
    assert (step := hessdiag.check(problem).step).lr == 0.02
    assert step.optimizer == "AdamW"
    with pytest.raises(RuntimeError, match="not attached"):
        _ = model.trainer


def test_a_learning_rate_that_is_computed_with_is_refused():
    class Scales(Lit):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1]) * self.optimizers().param_groups[0]["lr"]

    with pytest.raises(LoadError, match="computes with what its optimizer holds"):
        hessdiag.eigs(hessdiag.Problem(Scales().double(), data=batches()))
