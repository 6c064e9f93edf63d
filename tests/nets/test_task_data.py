"""The data, losses and networks of the papers' tasks, against numbers by hand and other implementations."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.nets import TASKS
from hessdiag.nets.tasks.autoencoder import autoencoder, entropy
from hessdiag.nets.tasks.grey_digits import grey_digits
from hessdiag.nets.tasks.neural_chain import neural_chain, noisy_chain
from hessdiag.nets.tasks.pixel_cnn import PixelCNN, drawn, inputs, pixel_cnn, questions, shades
from hessdiag.nets.tasks.quadratic import quadratic
from hessdiag.nets.tasks.resnets import ResNet18, digits, resnet18, stripped_resnet
from hessdiag.problem.load import ProblemRequest, load_problem

SMALL = {
    "deep_mlp": "samples=8",
    "neural_chain": "spread=0.1",
    "noisy_chain": "samples=8",
    "autoencoder": "samples=8",
    "pixel_cnn": "size=8, samples=8",
    "stripped_resnet": "depth=14, samples=8",
    "resnet18": "width=2, resolution=8, samples=8",
    "quadratic": "",
    "gpt": "layers=1, width=8, heads=2, vocabulary=16, context=8",
}
WITHOUT_CHANCE = ("quadratic",)


def load(text, **options):
    return load_problem(ProblemRequest(text, device="cpu", **options))


def numbers(problem):
    tensors = [*problem.model.parameters(), *[part for batch in problem.data for part in batch]]
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def loss_of(task, model=None):
    x, y = task["data"]
    return task["loss"]((model or task["model"])(x), y)


@pytest.mark.parametrize("name", sorted(SMALL.keys() & TASKS.keys()))
def test_the_same_seed_gives_the_same_task_and_another_another(name):
    first, again, other = (load(f"builtin:{name}({SMALL[name]})", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(numbers(first), numbers(again))
    assert torch.equal(numbers(first), numbers(other)) == (name in WITHOUT_CHANCE)
    assert math.isfinite(first.value())
    assert first.dtype == torch.float64


@pytest.mark.parametrize("name", sorted(TASKS))
def test_what_is_said_of_a_task_says_that_it_is_one(name):
    assert TASKS[name][1].startswith("task: ")


def test_the_chain_starts_at_equal_weights_and_its_loss_is_half_the_squared_distance():
    task = neural_chain(length=7, start=0.6)
    assert [parameter.shape for parameter in task["model"].parameters()] == [(1, 1)] * 7
    assert loss_of(task).item() == pytest.approx((1 - 0.6**7) ** 2 / 2, rel=1e-14)
    assert task["model"].task.level == 0.5


@pytest.mark.parametrize(("length", "steps"), [(5, 23), (10, 322)])
def test_gradient_descent_takes_as_many_steps_as_the_recursion_by_hand(length, steps):
    weight, count = 0.5, 0
    while (1 - weight**length) ** 2 > (1 - 0.5**length) ** 2 / 2:
        weight += 0.1 * (1 - weight**length) * weight ** (length - 1)
        count += 1
    assert count == steps
    task = neural_chain(length=length)
    optimizer = torch.optim.SGD(task["model"].parameters(), lr=0.1)
    for _ in range(steps):
        before = loss_of(task)
        optimizer.zero_grad()
        before.backward()
        optimizer.step()
    half = (1 - 0.5**length) ** 2 / 4
    assert loss_of(task).item() <= half < before.item()


def test_the_spread_of_a_chain_is_a_share_of_its_start():
    weights = torch.cat(
        [w.detach()[0] for w in neural_chain(length=2000, start=0.5, spread=0.01)["model"].parameters()]
    )
    assert weights.mean().item() == pytest.approx(0.5, abs=4e-4)
    assert weights.std().item() == pytest.approx(0.005, rel=0.06)


def test_noise_is_added_to_each_samples_gradient_and_not_to_that_of_all():
    task = noisy_chain(length=4, noise=0.2, samples=500)
    model, slopes = task["model"], task["data"]

    def gradient(part):
        return torch.cat(torch.autograd.grad(task["objective"](model, part), list(model.parameters()))).reshape(-1)

    expected = torch.full((4,), -(1 - 0.5**4) * 0.5**3, dtype=torch.float64)
    assert torch.allclose(gradient(slopes), expected, rtol=1e-12)
    assert torch.allclose(gradient(slopes[3:4]), expected + slopes[3], rtol=1e-12)
    assert slopes.std(0).tolist() == pytest.approx([0.2] * 4, rel=0.1)
    assert model.task.samples == 1


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [("well", [[1, 0], [0, 1.5]]), ("ill", [[1, 0], [0, 100]]), ("rotated", [[50.5, -49.5], [-49.5, 50.5]])],
)
def test_quadratics_have_their_matrix_and_start(kind, matrix):
    task = quadratic(kind)
    (weight,) = task["model"].parameters()
    assert weight.tolist() == [[-2, 1.5]]
    found = torch.autograd.functional.hessian(
        lambda point: task["loss"](task["data"][0] @ point, task["data"][1].squeeze()), weight.detach()[0]
    )
    expected = torch.tensor(matrix, dtype=torch.float64)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert loss_of(task).item() == pytest.approx(0.5 * (weight[0] @ expected @ weight[0]).item(), rel=1e-12)


def test_an_unknown_quadratic_is_refused_with_those_that_there_are():
    with pytest.raises(SpecError, match="well, ill, rotated"):
        quadratic("flat")


def test_the_autoencoder_has_a_linear_code_and_uniform_weights_and_biases():
    model = autoencoder()["model"]
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Linear", "Sigmoid"] * 3 + ["Linear"] + ["Linear", "Sigmoid"] * 3 + ["Linear"]
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [64, 48, 24, 8, 4, 8, 24, 48]
    scaled = torch.cat([layer.weight.detach().reshape(-1) * layer.in_features**0.5 for layer in linear])
    biases = torch.cat([layer.bias.detach() * layer.in_features**0.5 for layer in linear])
    for drawn_numbers, error in ((scaled, 0.04), (biases, 0.2)):
        assert drawn_numbers.abs().max().item() <= 1
        assert drawn_numbers.var().item() == pytest.approx(1 / 3, rel=error)


def test_the_floor_of_the_autoencoder_is_the_entropy_of_its_images_by_brute_force():
    task = autoencoder(samples=5, seed=1)
    pictures, targets = (part.numpy() for part in task["data"])
    assert (pictures == targets).all()
    values = [-t * math.log(t) - (1 - t) * math.log(1 - t) for t in pictures.reshape(-1).tolist()]
    assert task["model"].task.floor == pytest.approx(sum(values) / len(values), rel=1e-12)
    assert entropy(torch.tensor([0.0, 1.0])) == 0
    logits = torch.from_numpy(np.log(pictures / (1 - pictures)))
    perfect = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(targets)).item()
    assert perfect == pytest.approx(task["model"].task.floor, rel=1e-12)
    assert np.linalg.matrix_rank(np.vstack([logits, -logits])) == 4


def test_the_autoencoder_starts_at_the_loss_of_a_constant_image():
    problem = load("builtin:autoencoder")
    pictures = problem.data[0][1]
    mean = pictures.mean(0).expand_as(pictures)
    constant = nn.functional.binary_cross_entropy(mean, pictures).item()
    assert problem.value() == pytest.approx(constant, rel=0.05)
    assert problem.model.task.floor < 0.8 * constant


def test_pixel_cnn_has_the_papers_parameters_and_one_kind_of_layer_without_bias():
    model = PixelCNN(seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 94_696
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 1 + 5 * 4 * 3 + 1
    for layer in layers:
        assert (layer.bias is None) == ((layer.in_channels, layer.out_channels) == (20, 40))


def test_a_block_of_pixel_cnn_is_its_formula():
    block = PixelCNN(seed=3)[1]
    first, _, middle, _, last = block.body
    with torch.no_grad():
        middle.bias.normal_()
    x = torch.randn(2, 20, 3, 3, dtype=torch.float64)
    wide = torch.atan(torch.einsum("oi,nihw->nohw", first.weight[:, :, 0, 0], x))
    padded = nn.functional.pad(wide, (1, 1, 1, 1))
    spread = torch.stack(
        [
            sum(
                padded[:, channel // 3, row : row + 3, column : column + 3] * middle.weight[channel, 0, row, column]
                for row in range(3)
                for column in range(3)
            )
            + middle.bias[channel]
            for channel in range(120)
        ],
        dim=1,
    )
    added = torch.einsum("oi,nihw->nohw", last.weight[:, :, 0, 0], torch.atan(spread)) + last.bias[:, None, None]
    assert torch.allclose(block(x), x + added)


@pytest.mark.parametrize("size", [1, 7, 28, 32])
def test_pixel_cnn_ends_at_one_pixel_from_any_size(size):
    assert PixelCNN(size)(torch.zeros(1, 5, size, size, dtype=torch.float64)).shape == (1, 256)


def test_pixel_cnn_refuses_images_that_do_not_end_at_one_pixel():
    with pytest.raises(SpecError, match="1 to 32 pixels"):
        PixelCNN(33)


def test_what_the_network_sees_of_a_picture_by_hand():
    picture = torch.arange(10, 19).reshape(1, 3, 3)
    seen = inputs(picture, torch.tensor([4]))[0]  # the pixel in the middle
    assert (seen[0] * 256).tolist() == [[10, 11, 12], [13, 0, 0], [0, 0, 0]]
    assert seen[1].tolist() == [[1, 1, 1], [1, -1, -1], [-1, -1, -1]]
    assert seen[2].tolist() == [[1, -1, -1]] * 3
    assert seen[3].tolist() == [[pytest.approx(2 * row / 3 - 1)] * 3 for row in range(3)]
    assert torch.equal(seen[4], seen[3].T)


def test_the_right_shade_is_the_first_that_the_network_does_not_see():
    seen, right = questions(torch.arange(1, 17).reshape(1, 4, 4), 200, torch.Generator().manual_seed(0))
    assert right.tolist() == [int((image[1] > 0).sum()) + 1 for image in seen]
    assert set(right.tolist()) == set(range(1, 17))
    assert torch.equal((seen[:, 0] * 256).amax((1, 2)).long(), right - 1)


def test_digits_have_256_shades_at_28_pixels():
    found = shades(28)
    assert found.shape == (1797, 28, 28)
    assert (found.min().item(), found.max().item()) == (0, 255)
    assert pixel_cnn(samples=4)["data"][0].shape == (4, 5, 28, 28)


def test_pictures_are_drawn_row_by_row_from_what_was_drawn_before():
    class OneMore(nn.Module):
        """One more than the number of pixels that it sees, but at most 255, in the shade that is certain."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, seen):
            shade = (seen[:, 0].flatten(1) * 256).amax(1).round().long() + 1
            return 1e3 * nn.functional.one_hot(shade, 256).double()

    pictures = drawn(OneMore(), 2, 3, torch.Generator().manual_seed(0))
    assert pictures.tolist() == [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]] * 2


def test_resnet18_is_its_formula():
    model = ResNet18(width=2, seed=0).eval()
    assert sum(parameter.numel() for parameter in ResNet18(seed=0, dtype=torch.float32).parameters()) == 11_173_962
    layers = iter([module for module in model.modules() if isinstance(module, nn.Conv2d)])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)

    def convolved(x, norm, stride=1):
        layer = next(layers)
        y = nn.functional.conv2d(x, layer.weight, stride=stride, padding=(layer.weight.shape[-1] - 1) // 2)
        return (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    norms = iter([module for module in model.modules() if isinstance(module, nn.BatchNorm2d)])
    h = convolved(x, next(norms)).relu()
    for block in range(8):
        stride = 2 if block in (2, 4, 6) else 1
        inside = convolved(convolved(h, next(norms), stride).relu(), next(norms))
        h = (inside + (convolved(h, next(norms), stride) if stride == 2 else h)).relu()
    expected = h.mean((2, 3)) @ model.fc.weight.T + model.fc.bias
    assert torch.allclose(model(x), expected)
    assert next(layers, None) is next(norms, None) is None


def test_digits_of_a_task_are_scikit_learns_scaled_to_one():
    images, labels = digits(1797, 8, 3, seed=0)
    pixels, classes = grey_digits()
    assert (images.shape, images.max().item()) == ((1797, 3, 8, 8), 1)
    assert images.mean().item() == pytest.approx(pixels.mean().item() / 16)
    assert labels.bincount().tolist() == classes.bincount().tolist()
    chosen = int((pixels.flatten(1) == images[5, 0].reshape(-1) * 16).all(1).nonzero()[0])
    assert classes[chosen] == labels[5]


def test_sizes_of_the_resnet_tasks():
    layers = [
        module for module in stripped_resnet(samples=1)["model"].modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == 500
    assert all(layer.bias is None for layer in layers)
    assert resnet18(width=2, resolution=8, samples=9)["data"][0].shape == (9, 3, 8, 8)
    with pytest.raises(SpecError, match="at least 1 channel"):
        ResNet18(width=0)


def test_without_scikit_learn_the_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(LoadError, match="not installed") as caught:
        grey_digits()
    assert caught.value.hint == "pip install scikit-learn"
