"""Softmax regression on digits, and a GPT of 1,788 weights, as MODELs for `hessdiag blocks --by`.

hessdiag blocks examples/block_structure.py:softmax --by class
hessdiag blocks 'examples/block_structure.py:gpt(steps=300)' --by head
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from hessdiag.nets.gpt import gpt as untrained


def softmax(classes: int = 10) -> tuple[nn.Module, object, str]:
    """Softmax regression at zero on all digits below `classes`, pixels from 0 to 1."""
    pixels, digit = load_digits(return_X_y=True)
    some = digit < classes
    model = nn.Linear(64, classes, dtype=torch.float64)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model, (torch.tensor(pixels[some] / 16), torch.tensor(digit[some])), "ce"


def gpt(steps: int = 0, seed: int = 0) -> tuple[nn.Module, object, str]:
    """A GPT of one layer with two heads on 64 sentences of 8 tokens, after steps of Adam with all of them in each."""
    task = untrained(1, 12, heads=2, vocabulary=16, context=8, sequences=64, mlp_ratio=2, seed=seed)
    model, (tokens, targets) = task["model"], task["data"]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    return model, (tokens, targets), "ce"
