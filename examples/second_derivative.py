"""torch.func.hessian against finite differences, through two layers where torch 2.13 gets it wrong."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, hessian, jacrev

import hessdiag

torch.manual_seed(0)
x, t = torch.randn(16, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
theta = torch.rand(18, dtype=torch.float64) + 0.5  # weight, bias, and scales of the inputs: 6 each


def layer_norm(theta: Tensor) -> Tensor:
    weight, bias, scale = theta.split(6)
    return (nn.functional.layer_norm(x * scale, (6,), weight, bias).tanh() @ t).square().mean()


def batch_norm(theta: Tensor) -> Tensor:
    weight, bias, scale = theta.split(6)
    return (nn.functional.batch_norm(x * scale, None, None, weight, bias, training=True).tanh() @ t).square().mean()


def differences(f: Callable[[Tensor], Tensor], h: float = 1e-4) -> Tensor:
    """Fourth-order central differences of the gradient."""

    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(f(at), at)[0]

    def row(e: Tensor) -> Tensor:
        near, far = (gradient(theta + k * h * e) - gradient(theta - k * h * e) for k in (1, 2))
        return (8 * near - far) / (12 * h)

    return torch.stack([row(e) for e in torch.eye(len(theta), dtype=torch.float64)])


for f in (layer_norm, batch_norm):
    truth = differences(f)
    model = nn.ParameterList([theta.clone()])
    problem = hessdiag.Problem(model, data=[None], objective=lambda model, _, f=f: f(model[0]))
    candidates = {
        "hessdiag.hessian": hessdiag.hessian(problem),
        "torch.func.hessian(f)": hessian(f)(theta),
        "torch.func.jacrev(grad(f))": jacrev(grad(f))(theta),
    }
    for name, H in candidates.items():
        error, asymmetry = float((H - truth).norm() / truth.norm()), float((H - H.T).norm() / H.norm())
        print(f"{f.__name__}  {name:<27} error {error:.0e}  asymmetry {asymmetry:.0e}")
