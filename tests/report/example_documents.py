"""Result documents as the two commands write them, with made-up but plausible numbers."""

import math
from typing import Any

from hessdiag.report.document import document

PROVENANCE = {
    "argv": ["hessdiag", "diag-share", "model.pt"],
    "started": "2026-01-02T03:04:05+00:00",
    "wall_seconds": 1.25,
    "peak_memory_bytes": 250_000_000,
    "versions": {"hessdiag": "0.1.0", "torch": "2.13.0", "numpy": "2.4.0", "python": "3.11.9"},
    "platform": "Linux x86_64",
    "device": "cpu",
    "threads": 2,
    "kernels_forced": ["attention: math kernel"],
}


def diag_share(
    layers: int = 3,
    *,
    sampled: bool = False,
    trajectory: bool = False,
    name: str = "blocks.{}.linear",
    **problem: Any,
) -> dict[str, Any]:
    n, d = 32, 1000 * layers
    stderr = 0.0004 if sampled else None
    share = 0.0123
    entries = [
        {
            "name": name.format(index),
            "kind": "Linear",
            "parameters": 1000,
            "rows": 40 if sampled else 1000,
            "diag_share": 0.02 / (index + 1),
            "diag_share_stderr": 0.001 if sampled else None,
            "wigner": 0.001,
            "ols_gaussian": 0.007,
            "abs_sum": 12.0 + index,
        }
        for index in range(layers)
    ]
    weight = [[1.0 / (1 + abs(i - j)) for j in range(layers)] for i in range(layers)]
    total = sum(map(sum, weight))
    points = [
        {
            "label": f"step{step}.pt",
            "diag_share": 0.004 * step + 0.002,
            "diag_share_stderr": stderr,
            "diag_share_interval": [0.004 * step + 0.001, 0.004 * step + 0.003] if sampled else None,
            "layer_block_share": 0.4 + 0.1 * step,
            "wigner": 1 / d,
            "ols_gaussian": 0.0023,
            "layers": [{"name": entry["name"], "diag_share": entry["diag_share"]} for entry in entries],
        }
        for step in range(3)
    ]
    result = {
        "diag_share": share,
        "diag_share_stderr": stderr,
        "diag_share_interval": [0.0115, 0.0131] if sampled else None,
        "method": "rows" if sampled else "exact",
        "rows": 40 * layers if sampled else d,
        "parameters": d,
        "abs_diag_sum": 3.21,
        "abs_sum": 3.21 / share,
        "trace": None if sampled else 2.87,
        "negative_diagonal_fraction": 0.043,
        "zero_rows": 0.0,
        "baselines": {
            "wigner": 1 / d,
            "ols_gaussian": 0.00236,
            "ols_clt": 0.00234,
            "n": n,
            "d": d,
            "ols_gaussian_outputs": 0.0044,
            "ols_clt_outputs": 0.0044,
            "n_outputs": 3 * n,
            "ols_data": 0.0156,
            "ols_data_d": 64,
            "ols_data_gaussian": 0.099,
            "ols_columns": 0.0161,
        },
        "layers": entries,
        "layer_block_share": 0.52,
        "layer_block_share_stderr": 0.01 if sampled else None,
        "layer_block_matrix": [[value / total for value in row] for row in weight],
        "trajectory": points if trajectory else None,
    }
    described = {
        "model": "Sequential",
        "spec": "model.pt",
        "parameters": d,
        "samples": n,
        "batches": 1,
        "input_shape": [8],
        "outputs": 3,
        "synthetic": True,
        "loss": "mse",
        "loss_definition": "squared error, mean over samples and outputs",
        "reduction": "mean",
        "device": "cpu",
        "dtype": "float32",
        "train_mode": False,
        "seed": 0,
        "weights_sha256": "ab" * 32,
        "data_sha256": "cd" * 32,
        "notes": ["loss: mse, assumed; --loss ce|mse|bce|nll to change"],
        **problem,
    }
    verdict = [
        {
            "level": "ok",
            "says": "The Hessian is far more diagonal than a random matrix of its size.",
            "because": "its share 0.0123 is 36.9 times the Wigner value 1/d = 0.000333",
            "try": None,
        },
        {
            "level": "warn",
            "says": "The batch is synthetic, so the share says nothing about the trained network.",
            "because": "no --data was given",
            "try": "hessdiag diag-share model.pt --data batch.npz --loss ce",
        },
    ]
    return document(
        "diag-share",
        status="ok",
        problem=described,
        result=result,
        theory=None,
        checks={"hvp_symmetry": 1.2e-7, "hvp_finite_difference": 3.4e-5},
        verdict=verdict,
        provenance=PROVENANCE,
    )


def _norm(log: float, spread: float) -> dict[str, float]:
    return {
        "median": math.exp(log),
        "mean": math.exp(log + spread**2 / 2),
        "rms": math.exp(log + spread**2),
        "q05": math.exp(log - 1.645 * spread),
        "q95": math.exp(log + 1.645 * spread),
        "log_median_stderr": 1.25 * spread / 10,
    }


def vanishing(deepest: int = 128, rate: float = -0.55) -> dict[str, Any]:
    depths = [depth for depth in (2, 4, 8, 16, 32, 64, 128) if depth <= deepest]
    entries = []
    for depth in depths:
        spread = 0.25 * math.sqrt(depth)
        log = rate * depth
        entries.append(
            {
                "depth": depth,
                "width": 32,
                "seeds": 200,
                "hessian_seeds": 100,
                "hessian_method": "exact",
                "dead_fraction": 0.0,
                "gradient_norm": _norm(log, spread),
                "hessian_norm": _norm(log + 1.5, spread),
                "hessian_diagonal_blocks_norm": _norm(2 * log, 2 * spread),
                "hessian_offdiagonal_blocks_norm": _norm(log + 1.5, spread),
                "hessian_diag_share": None,
                "vjp_norm": _norm(log - 0.2, spread),
                "theory_rms": {
                    "gradient": math.exp(log + spread**2),
                    "hessian": math.exp(log + 1.5 + spread**2),
                },
                "theory_median": {"vjp": math.exp(log - 0.2)},
            }
        )
    names = ("gradient", "hessian", "hessian_diagonal_blocks", "hessian_offdiagonal_blocks", "vjp")
    last = entries[-1]["depth"]
    result = {
        "width": 32,
        "init": "lecun",
        "distribution": "uniform",
        "activation": "linear",
        "seeds": 200,
        "batch": 1,
        "depths": entries,
        "layers": [
            {
                "layer": layer,
                "gradient_norm": _norm(rate * last - 1.7 + 0.4 * math.sin(layer), 2.0),
                "hessian_block_norm": _norm(2 * rate * last + 0.02 * layer, 4.0),
            }
            for layer in range(1, last + 1)
        ],
        "rates": {
            name: {
                "per_layer": rate * (2 if "_diagonal" in name else 1),
                "per_layer_stderr": 0.004,
                "theory_per_layer": rate * (2 if "_diagonal" in name else 1) - 0.005,
            }
            for name in names
        },
        "agreement": [
            {
                "depth": depth,
                "quantity": "vjp",
                "measured_log_median": rate * depth,
                "stderr": 0.1,
                "theory_log_median": rate * depth + 0.05,
                "z": -0.5,
            }
            for depth in depths
        ],
    }
    return document(
        "vanishing",
        status="ok",
        problem={"model": "builtin:mlp", "dtype": "float64", "device": "cpu", "seed": 0},
        result=result,
        theory={"assumes": "independent symmetric weights"},
        checks={},
        verdict=[
            {
                "level": "bad",
                "says": "Gradient and Hessian vanish together: no step size rescues gradient descent.",
                "because": "the median gradient norm loses a factor of 0.577 per layer",
                "try": "--init he_uniform, or an optimizer that normalizes by the gradient's own scale",
            }
        ],
        provenance={**PROVENANCE, "argv": ["hessdiag", "vanishing", "--depth", "128"]},
    )
