"""Networks whose pages are looked at: small, 128 layers deep, and a small model of transformers."""

import pytest
import torch
from torch import nn


def mlp():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, [(torch.randn(24, 6), torch.randint(0, 3, (24,)))], nn.CrossEntropyLoss()


def deep():
    torch.manual_seed(0)
    layers = [nn.Linear(2, 2)]
    for _ in range(127):
        layers += [nn.Tanh(), nn.Linear(2, 2)]
    return nn.Sequential(*layers), [(torch.randn(8, 2), torch.randn(8, 2))], nn.MSELoss()


def bert(folder):
    """A BERT of transformers with twelve blocks, saved: its names are long, and its loss is its own."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=4,
        num_hidden_layers=12,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():  # fresh ones make LayerNorm divide by nearly nothing
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
