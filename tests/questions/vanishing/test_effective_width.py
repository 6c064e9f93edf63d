import pytest
import torch
from torch import nn

from hessdiag import Problem
from hessdiag.questions.vanishing.effective_width import effective_widths, padding_factor, stable_rank_width

LAYERS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    nn.Conv2d(4, 6, 3, padding=2, dilation=2, stride=2, padding_mode="reflect"),
    nn.Conv2d(4, 6, (1, 3), groups=2),
    nn.Conv1d(4, 6, 3, padding=1),
    nn.Conv1d(4, 6, 5, padding=2, padding_mode="replicate", stride=2),
    nn.Linear(4, 6),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_it_is_the_variance_of_what_gaussian_weights_pass_on(layer):
    """Var |Wh|^2 / (E |Wh|^2)^2 = 2 / w, over many draws of W."""
    draws, generator = 2500, torch.Generator().manual_seed(0)
    shape = {nn.Conv2d: (1, 4, 6, 6), nn.Conv1d: (1, 4, 12), nn.Linear: (1, 5, 4)}[type(layer)]
    x = torch.randn(shape, generator=generator)
    width = stable_rank_width(layer, x.double())
    with torch.no_grad():
        energies = []
        for _ in range(draws):
            layer.weight.normal_(generator=generator)
            energies.append(float((layer(x) - (layer(x * 0))).square().sum()))
    energies = torch.tensor(energies)
    z = (energies / energies.mean() - 1).square()
    assert abs(float(z.mean()) - 2 / width) <= 4 * float(z.std()) / draws**0.5


def test_one_pixel_is_as_wide_as_its_channels():
    for layer in (nn.Conv2d(3, 16, 3, padding=1, padding_mode="circular"), nn.Conv2d(3, 16, 1), nn.Linear(3, 16)):
        shape = (2, 3) if isinstance(layer, nn.Linear) else (2, 3, 1, 1)
        assert stable_rank_width(layer, torch.randn(shape).double()) == pytest.approx(16, rel=1e-12)


def test_samples_are_joined_by_the_harmonic_mean_and_zeros_left_out():
    layer, x = nn.Conv2d(2, 4, 3, padding=1), torch.randn(2, 2, 5, 5).double()
    first, second = (stable_rank_width(layer, x[i : i + 1]) for i in range(2))
    assert stable_rank_width(layer, x) == pytest.approx(2 / (1 / first + 1 / second))
    assert stable_rank_width(layer, torch.cat([x[:1], 0 * x[:1]])) == pytest.approx(first)
    assert stable_rank_width(layer, 0 * x) is None


def test_networks_without_convolutions_are_as_wide_as_they_look():
    x = torch.ones(2, 3)
    assert effective_widths(Problem(nn.Linear(3, 3), [(x, x)], "mse")) == {}
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    found = effective_widths(Problem(net, [(torch.randn(2, 1, 4, 4), x)], "mse"))
    assert {name: width.path for name, width in found.items()} == {"0": 9.0, "3": 20.0}
    assert found["3"].stable_rank == pytest.approx(3)
    assert not net[0]._forward_pre_hooks


def test_a_single_image_without_a_batch_is_one_sample():
    image = torch.randn(2, 6, 5)
    conv = nn.Conv2d(2, 5, 3)
    alone = effective_widths(Problem(conv, [(image, torch.zeros(5, 4, 3))], "mse"))
    batched = effective_widths(Problem(conv, [(image[None], torch.zeros(1, 5, 4, 3))], "mse"))
    assert alone[""] == batched[""]


@pytest.mark.parametrize(
    ("layer", "shape", "factor"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 7, 32), (0.9010813 * 0.9939718) ** 0.5),
        (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 7), 0.9010813**0.5),
        (nn.Conv2d(3, 4, 3, padding="same"), (3, 7, 7), 0.9010813),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 7, 7), 1.0),
        (nn.Conv2d(3, 4, 1), (2, 3, 7, 7), 1.0),
        (nn.Conv2d(3, 4, 3), (2, 3, 7, 7), None),
        (nn.Conv2d(3, 4, 3, padding=1, stride=2), (2, 3, 7, 7), None),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 7, 7), None),
        (nn.Linear(7, 4), (2, 7), None),
    ],
)
def test_padding_multiplies_the_energy_of_images_that_keep_their_size(layer, shape, factor):
    found = padding_factor(layer, torch.ones(shape))
    assert found == (None if factor is None else pytest.approx(factor, rel=1e-6))


def test_a_network_of_convolutions_knows_what_its_padding_keeps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 3, padding=1))
    found = effective_widths(Problem(model, data=[(torch.ones(2, 1, 7, 7), torch.ones(2, 1, 7, 7))], loss="mse"))
    assert [width.padding for width in found.values()] == pytest.approx([0.9010813] * 2)
