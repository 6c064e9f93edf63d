"""A network that does not train: forty ReLU layers of width 32, as `nn.Linear` initializes them, on 128 digits.

`python examples/will_not_train.py` trains it with Adam, and the same with He's initialization beside it. Ask why with
`hessdiag check examples/will_not_train.py:setup --optimizer adam --lr 1e-3 --try`.
"""

import itertools

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

SAMPLES = 128


def digits(samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Images, (samples, 64), with mean 0 over all pixels, and their classes."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32)[:samples] / 16
    return x - x.mean(), torch.tensor(data.target)[:samples]


def setup(depth: int = 40, width: int = 32, he: bool = False) -> tuple[nn.Module, list[tuple[Tensor, Tensor]], str]:
    """What hessdiag asks for: model, batches and loss."""
    torch.manual_seed(0)
    sizes = [64, *[width] * (depth - 1), 10]
    linear = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
    for layer in linear if he else ():
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    model = nn.Sequential(*[module for layer in linear for module in (layer, nn.ReLU())][:-1])
    return model, [digits()], "ce"


def main() -> None:
    for he in (False, True):
        model, [(x, y)], _ = setup(he=he)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(300):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        accuracy = (model(x).argmax(1) == y).float().mean()
        print(f"{'He' if he else 'as it is'}: accuracy {accuracy:.2f} after 300 steps")


if __name__ == "__main__":
    main()
