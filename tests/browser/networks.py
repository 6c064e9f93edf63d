"""Networks whose pages are looked at: small, 128 layers deep, and with the names of a Hugging Face model."""

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


class Part(nn.Module):
    def __init__(self, /, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Transformer(nn.Module):
    """Names and shape of a BERT; attention without softmax over positions, which the names do not need."""

    def __init__(self, blocks, width):
        super().__init__()

        def block():
            attention = Part(
                self=Part(**{name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                output=Part(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width)),
            )
            return Part(
                attention=attention,
                intermediate=Part(dense=nn.Linear(width, 2 * width)),
                output=Part(dense=nn.Linear(2 * width, width), LayerNorm=nn.LayerNorm(width)),
            )

        layers = nn.ModuleList(block() for _ in range(blocks))
        self.bert = Part(
            embeddings=Part(word_embeddings=nn.Embedding(20, width)),
            encoder=Part(layer=layers),
            pooler=Part(dense=nn.Linear(width, width)),
        )
        self.classifier = nn.Linear(width, 2)

    def forward(self, tokens):
        x = self.bert.embeddings.word_embeddings(tokens)
        for block in self.bert.encoder.layer:
            inner = block.attention.self
            q, k, v = inner.query(x), inner.key(x), inner.value(x)
            mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            x = block.attention.output.LayerNorm(x + block.attention.output.dense(mixed))
            x = block.output.LayerNorm(x + block.output.dense(torch.tanh(block.intermediate.dense(x))))
        return self.classifier(torch.tanh(self.bert.pooler.dense(x[:, 0])))


def hf_like():
    torch.manual_seed(0)
    return Transformer(12, 4), [(torch.randint(0, 20, (4, 5)), torch.randint(0, 2, (4,)))], nn.CrossEntropyLoss()
