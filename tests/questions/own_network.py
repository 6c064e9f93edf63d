"""A script of a user: a network of any depth, in a function that counts its calls."""

NET = """
import torch
from torch import nn

print("built by the user's own code")
calls = []

def build(depth, width=4):
    calls.append(depth)
    assert len(calls) < 100
    layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1]).double()
"""
