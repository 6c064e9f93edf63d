"""How the Hessian of one attention layer grows with the scale of its input, block by block.

    python examples/attention_scale.py
    hessdiag blocks 'examples/attention_scale.py:attention(scale=0.01)'

One head without an output layer, eight sequences of five tokens, squared error to targets that do not scale. Attention
weighs by products of two inputs, and so a change of queries or keys moves its output by three: their Gauss-Newton
blocks grow with the sixth power of the scale, that of the values with the second. Without the softmax the weights
themselves are such products, and all three blocks grow with the sixth (Ormaniec, Dangel and Singh 2025, arXiv
2410.10986). The residual part grows with the fifth for queries and keys: where inputs are small, it is most of their
Hessian.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

import hessdiag

SCALES = 0.001, 0.002


class Attention(nn.Module):
    """One head of attention to all tokens, with or without softmax."""

    def __init__(self, width: int, softmax: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False).double() for _ in range(3))
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        """From (sequences, tokens, width) to the same shape."""
        scores = self.query(x) @ self.key(x).mT / math.sqrt(x.shape[-1])
        return (scores.softmax(-1) if self.softmax else scores) @ self.value(x)


def attention(softmax: bool = True, scale: float = 1.0, seed: int = 0) -> tuple[nn.Module, Any, str]:
    """The layer, its data and its loss, as a MODEL."""
    torch.manual_seed(seed)
    model = Attention(4, softmax)
    x, y = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    return model, [(scale * x, y)], "mse"


def power(small: float, large: float) -> str:
    """With which power of the scale a norm grows, where there is one."""
    return f"{math.log(large / small) / math.log(SCALES[1] / SCALES[0]):.3f}" if small else "none"


def main() -> None:
    for softmax in (True, False):
        print("softmax attention" if softmax else "linear attention")
        problems = [hessdiag.Problem(*attention(softmax, scale)) for scale in SCALES]
        small, large = (hessdiag.blocks(problem) for problem in problems)
        for i, name in enumerate(large.names):
            gauss_newton = power(small.gauss_newton[i][i], large.gauss_newton[i][i])
            residual = power(small.residual[i][i], large.residual[i][i])
            print(f"  {name:<5}  Gauss-Newton part grows with power {gauss_newton}, residual part: {residual}")


if __name__ == "__main__":
    main()
