"""Networks of each kind that a GPU treats in its own way, for `tests/gpu_check.py`: functions that the command line calls."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks import problems

Setup = tuple[nn.Module, list[Any], str]


def _labels(samples: int, classes: int) -> Tensor:
    return torch.randint(classes, (samples,))


def mlp() -> Setup:
    """195 parameters: exact everywhere."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    return model, [(torch.randn(32, 8), _labels(32, 3))], "ce"


def weighted() -> tuple[nn.Module, list[Any], nn.Module]:
    """A criterion with numbers of its own, which have to be where the outputs are."""
    model, data, _ = mlp()
    return model, data, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))


def wide(inputs: int = 64, width: int = 64, samples: int = 64) -> Setup:
    """Beyond what is solved as one matrix."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    return model, [(torch.randn(samples, inputs), _labels(samples, 10))], "ce"


def deep() -> Setup:
    """32 layers of width 16: replayed as CUDA graphs."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(32):
        linear = nn.Linear(16, 16)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 4)), [(torch.randn(32, 16), _labels(32, 4))], "ce"


def lenet() -> Setup:
    """Convolutions with pooling; small."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip
    return model, [(torch.randn(16, 3, 20, 20), _labels(16, 10))], "ce"


def resnet() -> Setup:
    """Batch norm in eval mode."""
    problem = problems.small_resnet(torch.device("cpu"))
    return problem.model, list(problem.data), "ce"


def batch_norm() -> Setup:
    """Batch norm, to be measured in training mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    )  # fmt: skip
    return model, [(torch.randn(16, 3, 8, 8), _labels(16, 5))], "ce"


def dropout() -> Setup:
    """Dropout, whose masks must stay the same in training mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, 4))
    return model, [(torch.randn(24, 8), _labels(24, 4))], "ce"


class _Last(nn.Module):
    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


def lstm() -> Setup:
    """A recurrent network, whose cuDNN kernels have no second derivative."""
    torch.manual_seed(0)
    return _Last(nn.LSTM(5, 10, 2, batch_first=True), nn.Linear(10, 3)), [(torch.randn(8, 6, 5), _labels(8, 3))], "ce"


def gru() -> Setup:
    """Another."""
    torch.manual_seed(0)
    return _Last(nn.GRU(5, 10, batch_first=True), nn.Linear(10, 3)), [(torch.randn(8, 6, 5), _labels(8, 3))], "ce"


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def transformer() -> Setup:
    """Attention, layer norm and an embedding."""
    torch.manual_seed(0)
    return _Tokens(), [(torch.randint(50, (8, 12)), _labels(8, 5))], "ce"


def gpt2(
    layers: int = 2, width: int = 32, heads: int = 2, vocabulary: int = 64, samples: int = 4, length: int = 16
) -> Any:
    """A GPT-2 with random weights and its own loss."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # one that does not fit this torch, over which transformers would stumble
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=max(length, 32))
    tokens = torch.randint(vocabulary, (samples, length))
    return GPT2LMHeadModel(config), [{"input_ids": tokens, "labels": tokens}], "output"


def labels_out_of_range() -> Setup:
    """A label that no output stands for: a device-side assertion, if it gets there."""
    model, [(x, y)], loss = mlp()
    return model, [(x, y + 97)], loss


def tokens_out_of_range() -> Setup:
    """A token that has no row in the embedding."""
    model, [(tokens, y)], loss = transformer()
    return model, [(tokens + 99_999, y)], loss


def too_large(width: int = 16_384, samples: int = 131_072) -> Setup:
    """More than fits at once: a batch whose activations take 16 GB a layer in float32, and their graph many times that."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(16, width)]
    for _ in range(6):
        layers += [nn.Tanh(), nn.Linear(width, width // 4), nn.Tanh(), nn.Linear(width // 4, width)]
    return nn.Sequential(*layers, nn.Linear(width, 10)), [(torch.randn(samples, 16), _labels(samples, 10))], "ce"
