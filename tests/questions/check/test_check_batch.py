"""What is read off inputs, targets, outputs and the loss, against a direct computation of each number."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F  # noqa: N812

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.watch import passed

F64 = torch.float64
CLOSE = {"rel": 1e-9, "abs": 1e-12}


def check(model, batch, loss=None, **options):
    return passed(Problem(model, data=[batch], loss=loss, **options), seed=0)[0]


def digits(samples=128):
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:samples]
    return torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]


class TestInputs:
    def test_numbers_of_real_inputs(self):
        torch.manual_seed(0)
        x = torch.randn(20, 6, dtype=F64) * torch.tensor([1.0, 2, 3, 4, 500, 1]) + 2
        x[:, 3] = 7.0
        x[:, 5] = x[:, 0]
        found = check(nn.Linear(6, 2).double(), (x, torch.randint(2, (20,))), "ce").inputs[0]
        assert (found.name, found.kind, found.entries, found.taken_by) == ("0", "real", 6, "Linear")
        assert found.rms == pytest.approx(float(x.square().mean().sqrt()), **CLOSE)
        assert found.mean == pytest.approx(float(x.mean()), **CLOSE)
        assert found.stdev == pytest.approx(float(x.std(correction=0)), **CLOSE)
        assert (found.low, found.high) == (float(x.min()), float(x.max()))
        assert found.variation == pytest.approx(float(x.var(0).mean().sqrt() / x.square().mean().sqrt()), **CLOSE)
        assert found.constant_share == pytest.approx(1 / 6)
        assert found.duplicated_share == pytest.approx(1 / 5)
        varying = x.std(0)[x.std(0) > 0]
        assert found.steepest == pytest.approx(float(varying.max() / varying.median()), **CLOSE)

    def test_indices_and_mappings(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

            def forward(self, tokens, mask):
                return self.head((self.table(tokens) * mask[..., None]).mean(1))

        tokens = torch.randint(9, (8, 5))
        batch = {"tokens": tokens, "mask": torch.ones(8, 5), "labels": torch.randint(3, (8,))}
        first, second = check(Model(), batch, "ce").inputs
        assert (first.name, first.kind, first.entries, first.taken_by) == ("tokens", "index", 5, "table")
        assert (first.low, first.high) == (float(tokens.min()), float(tokens.max()))
        assert (second.name, second.kind, second.variation, second.constant_share) == ("mask", "real", 0.0, 1.0)

    def test_a_normalization_that_comes_first_is_seen(self):
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3))
        found = check(model, (torch.randn(8, 3, 4), torch.randint(3, (8,))), "ce").inputs[0]
        assert (found.taken_by, found.normalized) == ("1", True)
        found = check(
            nn.Sequential(nn.LayerNorm(5, elementwise_affine=False), nn.Linear(5, 3)),
            (torch.randn(8, 5), torch.randint(3, (8,))),
            "ce",
        )
        assert found.inputs[0].normalized


class TestTargets:
    def test_classes(self):
        y = torch.tensor([0, 1, 1, 2, 1, -100])
        found = check(nn.Linear(3, 5), (torch.randn(6, 3), y), "ce")
        targets = found.targets
        assert (targets.kind, targets.count, targets.classes, targets.seen) == ("classes", 5, 5, 3)
        assert (targets.largest_share, targets.low, targets.high, targets.constant) == (0.6, 0, 2, False)
        shares = [0.2, 0.6, 0.2]
        assert found.output.chance == pytest.approx(-sum(p * math.log(p) for p in shares), **CLOSE)
        assert found.output.uniform == pytest.approx(math.log(5), **CLOSE)

    def test_constant_and_real(self):
        assert check(nn.Linear(3, 5), (torch.randn(6, 3), torch.full((6,), 2)), "ce").targets.constant
        y = torch.randn(40, 2, dtype=F64) * 3 + 1
        found = check(nn.Linear(3, 2).double(), (torch.randn(40, 3, dtype=F64), y), "mse")
        assert (found.targets.kind, found.targets.count) == ("real", 80)
        assert found.targets.mean == pytest.approx(float(y.mean()), **CLOSE)
        assert found.targets.stdev == pytest.approx(float(y.std(correction=0)), **CLOSE)
        assert found.output.chance == pytest.approx(float(y.var(0, correction=0).mean()), **CLOSE)
        assert found.output.uniform == pytest.approx(float(y.square().mean()), **CLOSE)

    def test_labels_that_belong_to_inputs_and_shuffled_ones(self):
        x, y = digits()
        true = check(nn.Linear(64, 10), (x, y), "ce").targets
        assert true.neighbours_z > 20
        assert true.neighbours_excess > 0.5
        for seed in range(5):
            shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
            found = check(nn.Linear(64, 10), (x, shuffled), "ce").targets
            assert abs(found.neighbours_z) < 3
            assert abs(found.neighbours_excess) < 0.06

    def test_real_targets_of_the_inputs_and_others(self):
        x = torch.rand(128, 2, generator=torch.Generator().manual_seed(0))
        model = nn.Linear(2, 1)
        assert check(model, (x, (3 * x[:, :1]).sin()), "mse").targets.neighbours_z > 8
        noise = torch.randn(128, 1, generator=torch.Generator().manual_seed(1))
        assert abs(check(model, (x, noise), "mse").targets.neighbours_z) < 3

    def test_what_cannot_be_compared(self):
        x, y = digits(31)
        few = check(nn.Linear(64, 10), (x, y), "ce")
        assert few.targets.neighbours_z is None
        assert any("32 samples" in what for what in few.not_looked_at)
        x, y = digits(64)
        assert check(nn.Linear(64, 10), (x, y * 0), "ce").targets.neighbours_z is None


class ByHand(nn.Module):
    def forward(self, x):
        raised = x.exp()
        return raised / raised.sum(-1, keepdim=True)


class TestOutput:
    def test_numbers_of_the_output(self):
        torch.manual_seed(0)
        model = nn.Linear(6, 4).double()
        x, y = torch.randn(20, 6, dtype=F64), torch.randint(4, (20,))
        found = check(model, (x, y), "ce").output
        out = model(x).detach().requires_grad_()
        loss = F.cross_entropy(out, y)
        (slope,) = torch.autograd.grad(loss, out)
        out = out.detach()
        assert found.loss == pytest.approx(float(loss.detach()), **CLOSE)
        assert found.rms == pytest.approx(float(out.square().mean().sqrt()), **CLOSE)
        assert found.mean == pytest.approx(float(out.mean()), **CLOSE)
        assert found.variation == pytest.approx(float(out.var(0).mean().sqrt() / out.square().mean().sqrt()), **CLOSE)
        assert found.spread == pytest.approx(float(out.std(1, correction=0).mean()), **CLOSE)
        assert (found.low, found.high) == (float(out.min()), float(out.max()))
        assert found.gradient_rms == pytest.approx(20 * float(slope.square().mean().sqrt()), **CLOSE)
        assert found.depends_on_output
        assert (found.probabilities, found.last) == (None, None)

    def test_a_sum_is_measured_as_one(self):
        torch.manual_seed(0)
        model, x, y = nn.Linear(6, 4).double(), torch.randn(20, 6, dtype=F64), torch.randint(4, (20,))
        mean = check(model, (x, y), nn.CrossEntropyLoss()).output
        total = check(model, (x, y), nn.CrossEntropyLoss(reduction="sum")).output
        assert total.loss == pytest.approx(20 * mean.loss, **CLOSE)
        assert total.gradient_rms == pytest.approx(mean.gradient_rms, **CLOSE)
        assert total.chance is None

    @pytest.mark.parametrize(
        ("last", "loss", "expected"),
        [
            (nn.Softmax(-1), "ce", "softmax"),
            (nn.LogSoftmax(-1), "nll", "log_softmax"),
            (nn.Sigmoid(), "ce", "sigmoid"),
            (nn.ReLU(), "ce", None),
            (nn.Identity(), "ce", None),
        ],
    )
    def test_probabilities(self, last, loss, expected):
        torch.manual_seed(0)
        found = check(nn.Sequential(nn.Linear(6, 4), last), (torch.randn(9, 6), torch.randint(4, (9,))), loss).output
        assert found.probabilities == expected
        assert found.last == {
            "Softmax": "softmax",
            "LogSoftmax": "log_softmax",
            "Sigmoid": "sigmoid",
            "ReLU": "relu",
        }.get(type(last).__name__)

    def test_probabilities_by_hand_and_by_accident(self):
        batch = torch.rand(9, 6), torch.randint(4, (9,))
        assert check(nn.Sequential(nn.Linear(6, 4), ByHand()), batch, "ce").output.probabilities == "softmax"
        inside = nn.Linear(6, 4)
        nn.init.constant_(inside.weight, 0.01)
        nn.init.constant_(inside.bias, 0.3)
        assert check(inside, batch, "ce").output.probabilities is None
        start = nn.Linear(6, 4)
        nn.init.zeros_(start.weight)
        start.bias.data = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
        assert check(start, batch, "ce").output.probabilities is None

    def test_probabilities_of_many_classes_are_seen_by_all_of_them(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 70_000), ByHand())
        batch = torch.randn(40, 2), torch.randint(70_000, (40,))
        assert check(model, batch, "ce").output.probabilities == "softmax"

    def test_a_binary_loss(self):
        y = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])[:, None].double()
        found = check(nn.Linear(3, 1).double(), (torch.randn(8, 3, dtype=F64), y), "bce")
        assert found.output.chance == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), **CLOSE)
        assert found.output.uniform == pytest.approx(math.log(2), **CLOSE)
        assert (found.targets.kind, found.targets.largest_share, found.targets.seen) == ("binary", 0.75, 2)

    @pytest.mark.filterwarnings("ignore:Using a target size")
    def test_a_loss_that_broadcasts(self):
        y = torch.randn(8, dtype=F64)
        found = check(nn.Linear(3, 1).double(), (torch.randn(8, 3, dtype=F64), y), nn.MSELoss()).output
        assert found.broadcast
        assert found.chance == pytest.approx(float(y.var(correction=0)), **CLOSE)
        own = check(nn.Linear(3, 1).double(), (torch.randn(8, 3, dtype=F64), y), lambda o, t: ((o - t) ** 2).mean())
        assert own.output.broadcast
        plain = check(nn.Linear(3, 1).double(), (torch.randn(8, 3, dtype=F64), y[:, None]), nn.MSELoss()).output
        assert not plain.broadcast

    def test_weights_and_smoothing_leave_chance_unknown(self):
        batch = torch.randn(8, 3), torch.tensor([0, 1, 0, 1, 0, 1, 1, 1])
        for loss in (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), nn.CrossEntropyLoss(label_smoothing=0.1)):
            assert check(nn.Linear(3, 2), batch, loss).output.chance is None

    def test_an_objective_is_known_by_its_value(self):
        torch.manual_seed(0)
        batch = torch.randn(8, 3), torch.tensor([0, 1, 0, 1, 0, 1, 1, 1])
        shares = torch.tensor([3 / 8, 5 / 8], dtype=F64)

        def objective(model, batch):
            return F.cross_entropy(model(batch[0]), batch[1])

        found = check(nn.Linear(3, 2), batch, objective=objective)
        assert found.output.chance == pytest.approx(float(-(shares * shares.log()).sum()), **CLOSE)
        other = check(nn.Linear(3, 2), batch, objective=lambda m, b: m(b[0]).square().mean())
        assert other.output.chance is None
        assert other.output.rms is not None
        assert other.trained is None

    def test_a_loss_that_ignores_the_output(self):
        model, batch = nn.Linear(3, 2), (torch.randn(8, 3), torch.randint(2, (8,)))
        rounded = check(model, batch, lambda o, t: (o.argmax(1) == t).float().mean())
        assert not rounded.output.depends_on_output
        elsewhere = check(model, batch, objective=lambda m, b: m.weight.square().sum())
        assert elsewhere.output.gradient_rms is None

    def test_trained_is_well_below_chance(self):
        x, y = digits()
        model = nn.Linear(64, 10)
        assert check(model, (x, y), "ce").trained is False
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        assert check(model, (x, y), "ce").trained is True
