"""What tells nothing is not held against a network: noise, a single sample, an output whose graph is cut."""

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag import Problem
from tests.questions.check.corpus.data import pixels


def network(inputs, outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def ids(found):
    return [cause.id for cause in found.causes]


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_noise_are_no_cause(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(96, 8, generator=generator), torch.randint(3, (96,), generator=generator)
    found = hessdiag.check(Problem(network(8, 3), data=[(x, y)], loss="ce"), optimizer="adam")
    assert found.targets.inputs_are_noise
    assert found.causes == ()


def test_shuffled_labels_of_images_are():
    x, y = pixels().sized(128).batches[0]
    assert not hessdiag.check(Problem(network(64, 10), data=[(x, y)], loss="ce")).targets.inputs_are_noise
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(3))]
    found = hessdiag.check(Problem(network(64, 10), data=[(x, shuffled)], loss="ce"))
    assert ids(found) == ["targets"]


def test_a_single_sample_kills_no_unit():
    model = network(8, 3)
    nn.init.constant_(model[0].bias, -9.0)
    x, y = torch.randn(64, 8), torch.arange(64) % 3
    assert ids(hessdiag.check(Problem(model, data=[(x[:1], y[:1])], loss="ce"))) != ["dead_units"]
    assert ids(hessdiag.check(Problem(model, data=[(x, y)], loss="ce"), optimizer="sgd", lr=0.1))[0] == "dead_units"


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        with torch.no_grad():
            return self.layer(x)


def test_an_output_without_a_graph_is_detached_and_not_ignored():
    x, y = pixels().sized(128).batches[0]
    found = hessdiag.check(Problem(Cut(), data=[(x, y)], loss="ce"))
    assert ids(found) == ["detached"]
    assert found.output.depends_on_output


def test_an_output_that_is_broadcast_against_its_targets_is_put_into_their_shape():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 8, generator=generator)
    y = x[:, 0] - x[:, 1]
    with pytest.warns(UserWarning, match="target size"):
        found = hessdiag.check(Problem(network(8, 1), data=[(x, y)], loss=nn.MSELoss()), lr=0.1, attempt=True)
    assert ids(found) == ["output_broadcast"]
    assert found.trial.helped
    assert found.trial.code == "loss = criterion(model(x).squeeze(-1), y)"
    assert found.trial.after.final < 0.1 < found.trial.before.final


def test_an_interrupted_trial_leaves_the_causes():
    model = network(8, 3)
    nn.init.constant_(model[0].bias, -9.0)
    x, y = torch.randn(64, 8), torch.arange(64) % 3

    def interrupt(done, total, what):
        raise KeyboardInterrupt

    found = hessdiag.check(Problem(model, data=[(x, y)], loss="ce"), lr=0.1, attempt=True, progress=interrupt)
    assert (found.status, found.trial, ids(found)[0]) == ("interrupted", None, "dead_units")
    assert [finding.level for finding in found.findings][:2] == ["bad", "note"]


@pytest.mark.parametrize(("optimizer", "sure"), [(None, 0.5), ("adam(lr=1e-3)", 0.0), ("sgd(lr=0.1)", 0.9)])
def test_raw_pixels_are_a_cause_for_some_optimizers_and_a_warning_where_it_is_not_known(optimizer, sure):
    x, y = pixels().sized(128).batches[0]
    found = hessdiag.check(Problem(network(64, 10), data=[(x * 75 + 80, y)], loss="ce"), optimizer=optimizer)
    assert found.confidence == pytest.approx(sure, abs=0.1 if sure == 0.9 else 0)
    assert ids(found) == ["input_scale"][: bool(sure)]


def test_a_layer_that_the_gradient_fades_in_is_named():
    x, y = pixels().sized(128).batches[0]
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[2].weight.mul_(1e-4)
        model[2].bias.zero_()
    data = [(x.reshape(-1, 1, 8, 8), y)]
    found = hessdiag.check(Problem(model, data=data, loss="ce"), optimizer="sgd", lr=0.1)
    assert [(cause.id, cause.layer) for cause in found.causes] == [("weight_scale", "2")]
    assert "gradient_vanishes" in [symptom.id for symptom in found.causes[0].symptoms]
