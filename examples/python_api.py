"""The Python API in one page: python examples/python_api.py."""

import torch
from torch import nn

import hessdiag

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()
x, y = torch.randn(64, 8, dtype=torch.float64), torch.randint(3, (64,))

# A problem is a model, batches and a loss: the function of the parameters whose Hessian is measured.
problem = hessdiag.Problem(model, data=[(x, y)], loss="ce")
print(f"parameters {problem.n_parameters}, samples {problem.n_samples}")

# The dense Hessian, while it fits.
H = hessdiag.hessian(problem)
print(f"shape {tuple(H.shape)}, largest asymmetry {float((H - H.T).abs().max()):.1e}")

# The same matrix through its products only: one vector, several vectors, rows by index.
operator = hessdiag.HessianOperator(problem)
V = torch.randn(problem.n_parameters, 4, dtype=torch.float64)
print(f"operator against dense: largest difference {float((operator @ V - H @ V).abs().max()):.1e}")

# How diagonal is it? The result is a frozen dataclass; its verdict is in words.
share = hessdiag.diag_share(problem)
print(f"diagonal share {share.diag_share:.4f} ({share.method}), Wigner {share.baselines.wigner:.4f}")
for layer in share.layers:
    print(f"  layer {layer.name}: {layer.diag_share:.4f} of its own block, Wigner {layer.wigner:.4f}")
print(share.findings[0].says)

# How do gradients and curvature change with depth? Needs no model and no data.
measured = hessdiag.vanishing(depth=32, width=16, seeds=100, hessian_seeds=10)
for entry in measured.depths:
    gradient, hessian = entry.gradient_norm, entry.hessian_norm
    print(f"depth {entry.depth:3d}: median gradient norm {gradient.median:.3g}, Hessian norm {hessian.median:.3g}")
rate = measured.rates["gradient"]
print(
    f"gradient per layer: log {rate.per_layer:+.3f} ± {rate.per_layer_stderr:.3f}, theory {rate.theory_per_layer:+.3f}"
)
