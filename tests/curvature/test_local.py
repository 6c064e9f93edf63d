"""Curvature of a loss whose graph the caller holds, against autograd by brute force and matrices made by hand."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn.functional import cross_entropy

from hessdiag.curvature.local import LocalGaussNewton, LocalHessian, flat, gradient, like
from hessdiag.errors import ComputeError

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}


class Net(nn.Module):
    """Three outputs from four inputs, with a parameter that nothing depends on between the others."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 5)
        self.idle = nn.Parameter(torch.ones(2))
        self.second = nn.Linear(5, 3)
        self.to(dtype)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.arange(7) % 3


def as_function(net, loss):
    """The loss (and the output) as functions of one vector, in float64."""
    wide = Net()
    wide.load_state_dict(net.state_dict())
    names, shapes = zip(*wide.named_parameters(), strict=True)
    x, y = data()

    def output(w):
        return torch.func.functional_call(wide, dict(zip(names, like(w, shapes), strict=True)), (x,))

    return (lambda w: loss(output(w), y)), output, flat([p.detach() for p in shapes])


def squares(z, y):
    return (z - nn.functional.one_hot(y, 3)).square().sum() / 14


@pytest.mark.parametrize("loss", [cross_entropy, squares])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_both_matrices_and_their_gradient(loss, dtype):
    net = Net(dtype)
    x, y = data(dtype)
    parameters = list(net.parameters())
    output = net(x)
    H = LocalHessian(loss(output, y), parameters)
    output = net(x)
    G = LocalGaussNewton(loss(output, y), output, parameters)

    function, outputs, w = as_function(net, loss)
    J = jacobian(outputs, w)
    if loss is squares:
        B = torch.eye(3).double().expand(7, 3, 3) / 7
    else:
        p = outputs(w).softmax(dim=1)
        B = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / 7
    exact = {H: hessian(function, w), G: torch.einsum("sin,sij,sjm->nm", J, B, J)}

    assert H.shape == G.shape == (45, 45)
    wide = torch.promote_types(dtype, torch.float32)
    close = {"rtol": ROUNDING[dtype], "atol": ROUNDING[dtype]}
    for matrix, dense in exact.items():
        found = matrix @ torch.eye(45, dtype=wide)
        assert found.dtype == matrix.dtype == wide
        torch.testing.assert_close(found.double(), dense, **close)
        torch.testing.assert_close((matrix @ torch.ones(45, dtype=wide)).double(), dense.sum(dim=1), **close)
        torch.testing.assert_close(matrix.gradient.double(), jacobian(function, w), **close)
        assert not matrix.gradient.requires_grad
        assert matrix.products == 46
        assert matrix.gradients == 1
    torch.testing.assert_close(gradient(loss(net(x), y), parameters).double(), H.gradient.double(), **close)


def test_parameters_of_several_dtypes_are_one_vector_of_the_widest():
    a = torch.tensor([1.0, 2.0], requires_grad=True)
    b = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    H = LocalHessian((a.double() * b).square().sum(), [a, b])
    assert H.dtype == torch.float64
    assert H.gradient.tolist() == [18.0, 36.0, 30.0]
    assert (H @ torch.eye(3, dtype=torch.float64)).tolist() == [[18.0, 0, 12.0], [0, 18.0, 24.0], [12.0, 24.0, 10.0]]


def test_a_linear_loss_has_no_curvature():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    z = w * torch.tensor([3.0, 4.0])
    for matrix in (LocalHessian(z.sum(), [w]), LocalGaussNewton(z.sum(), z, [w])):
        assert matrix.gradient.tolist() == [3.0, 4.0]
        assert (matrix @ torch.ones(2)).tolist() == [0.0, 0.0]
        assert (matrix @ torch.ones(2, 3)).shape == (2, 3)


def test_what_the_loss_owes_beside_the_output_is_part_of_the_gradient_alone():
    w, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.5, 0.5], requires_grad=True)
    z = w * torch.tensor([3.0, 4.0])
    G = LocalGaussNewton(((z - b).square().sum() + 10 * w.square().sum()) / 2, z, [w, b])
    assert G.gradient.tolist() == [3 * 2.5 + 10, 4 * 7.5 + 20, -2.5, -7.5]
    assert (G @ torch.eye(4)).tolist() == torch.diag(torch.tensor([9.0, 16.0, 0, 0])).tolist()
    assert G.gradients == 2


def test_an_output_that_is_one_of_several_parts():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    first, second = (w * torch.tensor([3.0, 4.0])).split(1)
    G = LocalGaussNewton((first.square().sum() + second.square().sum()) / 2, first, [w])
    assert G.gradient.tolist() == [9.0, 32.0]
    assert (G @ torch.eye(2)).tolist() == [[9.0, 0.0], [0.0, 0.0]]


MAKES = (
    lambda loss, z, parameters: LocalHessian(loss, parameters),
    lambda loss, z, parameters: gradient(loss, parameters),
    LocalGaussNewton,
)


def test_a_loss_that_went_backward_already_is_refused_with_what_to_change():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    for make in MAKES:
        z = w.exp()
        loss = z.square().sum()
        loss.backward()
        with pytest.raises(ComputeError, match=r"gone backward already[^$]*return loss, without loss.backward\(\)"):
            make(loss, z, [w])


def test_a_loss_without_a_graph_is_refused():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    z = w.exp()
    for make in MAKES:
        with pytest.raises(ComputeError, match="does not depend on any of the parameters"):
            make(z.square().sum().detach(), z, [w])


def test_an_output_that_the_loss_was_not_computed_from_is_refused():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ComputeError, match="not computed from the output"):
        LocalGaussNewton(w.exp().sum(), w.exp(), [w])


def test_vectors_and_tensors():
    tensors = [torch.ones(2, 1), torch.zeros((), dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.bfloat16)]
    vector = flat(tensors)
    assert vector.dtype == torch.float64
    assert vector.tolist() == [1, 1, 0, 2, 2, 2]
    back = like(vector, tensors)
    assert [(part.shape, part.dtype) for part in back] == [(tensor.shape, tensor.dtype) for tensor in tensors]
    assert all(torch.equal(part, tensor) for part, tensor in zip(back, tensors, strict=True))
    assert flat(tensors[2:]).dtype == torch.float32
