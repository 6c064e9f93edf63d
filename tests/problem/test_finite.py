"""Weights, data and layers that are no numbers are named, with where they come from."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hessdiag import Problem
from hessdiag.errors import ComputeError, LoadError
from hessdiag.problem.load import ProblemRequest, load_problem

NAN, INF = float("nan"), float("inf")


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def loaded(spec, **options):
    return load_problem(ProblemRequest(str(spec), **{"device": "cpu", **options}))


@pytest.mark.parametrize(("value", "what"), [(NAN, "1 of 10 entries of 2.weight is NaN"), (-INF, "1 of 10 entries of 2.weight is infinite")])  # fmt: skip
@pytest.mark.parametrize("form", ["module", "state", "safetensors"])
def test_a_weight_that_is_no_number_is_named_and_the_file_too(value, what, form, tmp_path):
    bad = model()
    bad[2].weight.data[1, 3] = value
    path = tmp_path / f"bad.{form}"
    if form == "safetensors":
        save_file(bad.state_dict(), path)
    else:
        torch.save(bad if form == "module" else bad.state_dict(), path)
    torch.save(model(), tmp_path / "good.pt")
    with pytest.raises(LoadError) as caught:
        loaded(path) if form == "module" else loaded(tmp_path / "good.pt", weights=str(path))
    assert caught.value.what == f"the file {path} holds weights that are no numbers: {what}."
    assert caught.value.hint == "weights from before training diverged"


def test_several_are_listed(tmp_path):
    bad = model()
    for parameter in bad.parameters():
        parameter.data.fill_(NAN)
    torch.save(bad, tmp_path / "bad.pt")
    with pytest.raises(
        LoadError, match=r"all 20 entries of 0\.weight are NaN; so are entries of 0\.bias, 2\.weight, 2\.bias\."
    ):
        loaded(tmp_path / "bad.pt")


def test_what_a_narrow_dtype_cannot_hold_is_told_from_what_the_file_holds(tmp_path):
    large = model()
    large[0].weight.data.fill_(1e30)
    torch.save(large, tmp_path / "m.pt")
    with pytest.raises(
        LoadError, match=r"cast to float16, holds weights that are no numbers: all 20 entries of 0\.weight"
    ) as caught:
        loaded(tmp_path / "m.pt", dtype="float16")
    assert caught.value.hint == "--dtype float32, or the model's own"
    large[0].weight.data.fill_(1e5)
    torch.save(large, tmp_path / "m.pt")
    assert loaded(tmp_path / "m.pt").n_parameters == 37


def test_masks_that_are_not_trained_may_be_infinite(tmp_path):
    (tmp_path / "train.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Masked(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(4, 3)\n"
        "        self.mask = nn.Parameter(torch.tensor([0.0, 0.0, float('-inf')]), requires_grad=False)\n"
        "    def forward(self, x):\n"
        "        return (self.layer(x) + self.mask).softmax(-1)\n"
    )
    assert loaded(f"{tmp_path}/train.py:Masked", loss="mse").n_parameters == 15


def test_a_buffer_is_named_where_the_loss_shows_it(tmp_path):
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    network[1].running_var[2] = NAN
    torch.save(network, tmp_path / "m.pt")
    with pytest.raises(
        ComputeError,
        match=r"the loss is nan, for .*m\.pt holds what is no number: 1 of 5 entries of 1\.running_var is NaN",
    ):
        loaded(tmp_path / "m.pt")


def test_parameters_of_a_problem_in_python_are_named():
    bad = model()
    bad[0].bias.data[0] = NAN
    problem = Problem(bad, data=[(torch.zeros(3, 4), torch.zeros(3, 2))], loss="mse")
    with pytest.raises(ComputeError, match=r"for the model holds what is no number: 1 of 5 entries of 0\.bias is NaN"):
        problem.evaluate(problem.data[0])


def test_the_layer_in_which_it_begins_is_named():
    network = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 2))
    network[1][0].weight.data.fill_(1e30)
    network[0].weight.data.fill_(1e30)
    problem = Problem(network, data=[(torch.ones(3, 4), torch.zeros(3, 2))], loss="mse")
    assert problem.evaluate(problem.data[0]).isfinite()  # the hyperbolic tangent of infinity is 1
    network[1][1] = nn.Identity()
    with pytest.raises(
        ComputeError, match=r"parameters and data are finite: it begins in the output of 1\.0 \(Linear\)"
    ):
        problem.evaluate(problem.data[0])
    assert not any(module._forward_hooks for module in network.modules())


def test_a_loss_that_is_no_number_by_itself():
    problem = Problem(model(), data=[(torch.ones(3, 4), torch.zeros(3, 2))], loss=lambda z, y: (z * 0).sum().log())
    with pytest.raises(
        ComputeError, match=r"the loss is -inf, though .* no module puts out anything that is not finite"
    ):
        problem.evaluate(problem.data[0])


@pytest.mark.parametrize(
    ("names", "place", "at"), [(("x", "y"), "its inputs", [2, 3]), (("a", "y"), "its inputs", [2, 3])]
)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_data_that_are_no_numbers_are_named_with_their_file(names, place, at, batch_size, tmp_path):
    torch.save(model(), tmp_path / "m.pt")
    x = np.ones((10, 4), dtype="f4")
    x[2, 3] = NAN
    np.savez(tmp_path / "b.npz", **{names[0]: x, names[1]: np.zeros((10, 2))})
    spec = f"{tmp_path / 'b.npz'}#{','.join(names)}"
    with pytest.raises(LoadError, match="1 NaN or infinite of 40 entries in its inputs") as caught:
        loaded(tmp_path / "m.pt", data=spec, loss="mse", batch_size=batch_size)
    assert f"of {spec} holds" in caught.value.what
    assert f"the first at {at}" in caught.value.what


def test_data_that_the_models_dtype_cannot_hold(tmp_path):
    torch.save(model(), tmp_path / "m.pt")
    np.savez(tmp_path / "b.npz", x=np.full((6, 4), 1e100), y=np.zeros((6, 2)))
    with pytest.raises(LoadError, match=r"b\.npz in the model's dtype holds 24 NaN or infinite of 24") as caught:
        loaded(tmp_path / "m.pt", data=str(tmp_path / "b.npz"))
    assert caught.value.hint == "--dtype float64, or smaller numbers"
    assert loaded(tmp_path / "m.pt", data=str(tmp_path / "b.npz"), dtype="float64").n_parameters == 37


def test_targets_and_mappings_are_named():
    with pytest.raises(LoadError, match="1 NaN or infinite of 6 entries in its target"):
        Problem(model(), data=[(torch.zeros(3, 4), torch.tensor([[0.0, NAN]] * 1 + [[0, 0]] * 2))], loss="mse")
    with pytest.raises(LoadError, match="in 'pixel_values'"):
        Problem(model(), data=[{"pixel_values": torch.full((3, 4), INF), "labels": torch.zeros(3)}], loss="mse")
