"""Networks of a user's, whose layers have long names: for the commands that write the documents here."""

from collections import OrderedDict

import torch
from torch import nn


def build(layers=3, seed=0):
    """ReLU layers of width 4 in blocks, made of stock modules alone, so that a file of it is loaded freely."""
    torch.manual_seed(seed)
    blocks = [nn.Sequential(OrderedDict(linear=nn.Linear(4, 4), relu=nn.ReLU())) for _ in range(layers)]
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


def deep(depth):
    """One of as many layers as wanted, in double precision."""
    return build(depth).double()


def dead():
    """Two layers of ReLU units of which those of the second are zero for every sample, with the batch and the loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[2].bias, -9.0)
    x = torch.randn(96, 4)
    return model, [(x, x[:, :3].argmax(1))], "ce"


def squares(model, batch):
    """An objective that is no loss of outputs and targets."""
    return model(batch[0]).square().mean()


def watched(log):
    """Train the first of them by gradient descent at the edge of stability, and write what a monitor saw of it."""
    import hessdiag

    model = nn.Sequential(OrderedDict(one=nn.Linear(4, 24), tanh=nn.Tanh(), two=nn.Linear(24, 3)))
    torch.manual_seed(2)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    x = torch.randn(48, 4)
    y = torch.sin(2 * x @ torch.randn(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    problem = hessdiag.Problem(model, data=[(x, y)], loss="mse")
    quantities = ("loss", "gradient_norms", "lambda_max", "sharpness", "negative_curvature", "trace", "diag_share")
    with hessdiag.Monitor(problem, 20, None, optimizer=optimizer, quantities=quantities, log=log) as monitor:
        for _ in range(400):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            monitor.step()


def save(folder):
    """Files of them: one network, and three checkpoints of another that grows."""
    torch.save(build(), folder / "model.pt")
    torch.save(build(1), folder / "one.pt")
    for step in range(3):
        model = build(4)
        for weight in model.parameters():
            weight.data.mul_(1 + 0.5 * step)
        torch.save(model, folder / f"step{step}.pt")
