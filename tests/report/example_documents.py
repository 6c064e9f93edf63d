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
            "diag_share_interval": [0.018 / (index + 1), 0.022 / (index + 1)] if sampled else None,
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
        "negative_entry": -0.0021,
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
        "layer_block_share_interval": [0.5, 0.541] if sampled else None,
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
                "from_depth": max(2, last // 8),
                "to_depth": last,
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
        theory={
            "mean_square_growth": 0.33,
            "typical_growth": math.exp(rate),
            "rates": dict.fromkeys(names, rate),
            "critical_width_per_depth": 0.72,
            "exact": False,
        },
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


def forward(
    depth: int = 64, inits: tuple[str, ...] = ("lecun", "xavier_normal", "he_normal"), *, solved: bool = False
) -> dict[str, Any]:
    def init_of(name: str, rate: float, exact: bool) -> dict[str, Any]:
        layers = []
        for layer in range(1, depth + 1):
            spread, log = 0.2 * math.sqrt(layer), rate * layer
            layers.append(
                {
                    "layer": layer,
                    **_norm(log, spread),
                    "median_stderr": math.exp(log) * spread / 40,
                    "mean_stderr": math.exp(log) * spread / 20,
                    "rms_stderr": math.exp(log) * spread / 10,
                    "log_median": log,
                    "log_median_stderr": spread / 40,
                    "dead_fraction": 1e-3 if layer > 8 else 0.0,
                    "live": 1998,
                    "carriers": 200.0,
                    "kurtosis": math.exp(layer / 8),
                    "kurtosis_stderr": 0.01 * math.exp(layer / 8),
                    "theory_kurtosis": math.exp(layer / 8 + 0.01),
                    "theory_median": math.exp(log + 0.01) if exact else None,
                    "theory_rms": math.exp(log + spread**2),
                    "theory_log_median": log + 0.01 if exact else None,
                    "theory_log_rms": log + spread**2,
                    "z": -0.4 / spread if exact else None,
                }
            )
        last = layers[-1]
        return {
            "init": name,
            "distribution": "normal" if exact else "uniform",
            "activation": "relu",
            "depth": depth,
            "width": 32,
            "seeds": 2000,
            **{key: last[key] for key in ("median", "median_stderr", "rms", "rms_stderr")},
            "log_median_per_layer": rate,
            "log_median_per_layer_stderr": last["log_median_stderr"] / depth,
            "layers": layers,
            "solution": None
            if not solved
            else {
                "target": "median",
                "gain": 1.04,
                "gain_stderr": None if exact else 0.002,
                "method": "exact" if exact else "scaling",
                "mean_square_growth": 1.0857,
                "mean_square_growth_deep": 1.0860 if exact else None,
                "achieved": 1.02,
                "achieved_stderr": 0.05,
                "z": 0.4 if exact else None,
            },
        }

    entries = [init_of(name, -0.9 / (1 + index) ** 2, index > 0) for index, name in enumerate(inits)]
    agreement = [
        {
            "init": entry["init"],
            "layer": layer["layer"],
            "measured_log_median": layer["log_median"],
            "stderr": layer["log_median_stderr"],
            "theory_log_median": layer["theory_log_median"],
            "z": layer["z"],
        }
        for entry in entries
        for layer in entry["layers"]
        if layer["z"] is not None and layer["layer"].bit_count() == 1
    ]
    return document(
        "forward",
        status="ok",
        problem={"model": "builtin:mlp", "dtype": "float64", "device": "cpu", "seed": 0},
        result={"inits": entries, "agreement": agreement},
        theory={
            "inits": {
                "he_normal": {
                    "mean_square_growth": 1.0,
                    "typical_growth": 0.96,
                    "rates": {"vjp": -0.04},
                    "critical_width_per_depth": 1.9,
                    "exact": True,
                }
            }
        },
        checks={"he_normal_median_z": -2.0},
        verdict=[
            {
                "level": "note",
                "says": "he_normal: averages mislead, a typical network is 8 times smaller than the average says.",
                "because": "at layer 64 root mean square 1 (in theory)",
                "try": "judge an initialization by its median",
            }
        ],
        provenance={**PROVENANCE, "argv": ["hessdiag", "forward", "--depth", str(depth)]},
    )


def forward_layers(depth: int = 16) -> dict[str, Any]:
    """As `forward --solve median --per-layer` writes it."""
    doc = forward(depth, ("xavier_normal", "he_normal"), solved=True)
    for entry in doc["result"]["inits"]:
        entry["solution"]["layers"] = [
            {
                "layer": layer["layer"],
                "name": None,
                "gain": 1.04 + 0.01 * math.sin(layer["layer"]),
                "gain_stderr": 0.003,
                "achieved": 1.0 + 0.02 * math.cos(layer["layer"]),
                "achieved_stderr": 0.012,
                "z": 1.6 * math.cos(layer["layer"]),
            }
            for layer in entry["layers"]
        ]
    return doc


def forward_model(layers: int = 3) -> dict[str, Any]:
    """As `forward MODEL` writes it: layers have names, and nothing is known exactly."""
    doc = forward(layers, solved=True)
    for entry in doc["result"]["inits"]:
        entry |= {"width": None, "activation": None}
        entry["solution"] |= {"mean_square_growth": None, "mean_square_growth_deep": None, "method": "bisection"}
        for layer in entry["layers"]:
            layer |= {key: None for key in layer if key.startswith("theory_") or key == "z"}
            layer["name"] = f"blocks.{layer['layer']}.linear"
    problem = {"model": "Sequential", "spec": "model.pt", "parameters": 3000, "samples": 32, "loss": "mse"}
    return doc | {
        "problem": {**problem, "synthetic": True, "device": "cpu", "dtype": "float32", "seed": 0},
        "result": {"inits": doc["result"]["inits"], "agreement": []},
        "theory": None,
        "checks": {},
    }


def vanishing_model(deepest: int = 16) -> dict[str, Any]:
    """A user's convolutional network: no theory, no width, effective widths."""
    doc = vanishing(deepest, rate=-0.2)
    widths = {"path_width": 72.0, "effective_width": 14.31, "effective_width_stderr": 0.42}
    for entry in doc["result"]["depths"]:
        nothing = dict.fromkeys(("width", "vjp_norm", "theory_rms", "theory_median", "certified_indefinite"))
        entry |= nothing | widths
        entry |= {"parameters": 576 * entry["depth"], "hessian_method": "hvp", "hessian_probe_error": 0.031}
    for layer in doc["result"]["layers"]:
        layer |= {"name": f"stage.{layer['layer']}.conv", "parameters": 576} | widths
    rates = {name: rate | {"theory_per_layer": None} for name, rate in doc["result"]["rates"].items() if name != "vjp"}
    own = {"width": None, "activation": None, "init": None, "distribution": None, "seeds": 10, "batch": 32}
    problem = {
        "model": "FCN",
        "spec": "train.py:build(depth={depth})",
        "parameters": 576 * deepest,
        "samples": 32,
        "input_shape": [3, 7, 7],
        "loss": "mse",
        "reduction": "mean",
        "synthetic": True,
        "train_mode": True,
        "dtype": "float64",
        "device": "cpu",
        "seed": 0,
        "notes": [],
    }
    result = doc["result"] | own | {"rates": rates, "agreement": []}
    checks = {"hvp_symmetry": 1e-15, "hvp_finite_difference": 2e-9}
    return doc | {"problem": problem, "result": result, "theory": None, "checks": checks}


def eigs(layers: int = 3, *, exact: bool = False, lowest: int = 2, highest: int = 3) -> dict[str, Any]:
    def pair(value: float, place: int) -> dict[str, Any]:
        weights = [1.0 / (1 + abs(place - index)) for index in range(layers)]
        return {
            "eigenvalue": value,
            "residual": 1e-4 * abs(value),
            "converged": place != 1,
            "gradient_overlap": 0.1 * place,
            "layer_weights": [weight / sum(weights) for weight in weights],
        }

    low = [pair(-0.5 / (index + 1), index) for index in range(lowest)]
    high = [pair(2.0 ** (index - 1), lowest + index) for index in range(highest)]
    spectrum = [-0.5, -0.25, *(0.0,) * 3, *(2.0**power for power in range(-30, 2))]
    result = {
        "lowest": low,
        "highest": high,
        "smallest": low[0]["eigenvalue"] if low else None,
        "largest": high[-1]["eigenvalue"] if high else None,
        "method": "exact" if exact else "lanczos",
        "parameters": len(spectrum),
        "layers": [f"blocks.{index}.linear" for index in range(layers)],
        "tol": 1e-3,
        "rounding": 1e-12,
        "inertia": {"positive": 32, "negative": 2, "zero": 3, "tolerance": 1e-12} if exact else None,
        "spectrum": spectrum if exact else None,
        "largest_step": 1.0,
        "gradient_norm": 0.3,
        "gradient_curvature": 0.7,
        "negative_certificate": {"certain": True, "bound": -0.4995, "why": "the lowest Ritz value plus its residual"},
        "hvps": 57,
        "basis": 56,
        "restarts": 0 if exact else 2,
        "engine": "batched double backward",
    }
    return document(
        "eigs",
        status="ok",
        problem={"model": "Sequential", "parameters": len(spectrum), "samples": 32, "loss": "ce", "reduction": "mean"},
        result=result,
        theory=None,
        checks={"hvp_symmetry": 1e-15, "hvp_finite_difference": 1e-10},
        verdict=[{"level": "note", "says": "Negative curvature is proven.", "because": "a Ritz value", "try": "Adam"}],
        provenance={**PROVENANCE, "argv": ["hessdiag", "eigs", "model.pt"]},
    )


def blocks(layers: int = 3, *, exact: bool = False, objective: bool = False) -> dict[str, Any]:
    def matrix(within: float, between: float) -> list[list[float]]:
        return [[within if i == j else between / (1 + abs(i - j)) for j in range(layers)] for i in range(layers)]

    def noise(values: list[list[float]]) -> list[list[float]] | None:
        return None if exact else [[0.05 * value for value in row] for row in values]

    whole, part, rest = matrix(0.4, 1.1), matrix(0.4, 0.5), matrix(3e-17, 0.9)
    error = None if exact else 0.0123
    result = {
        "names": [f"blocks.{index}.linear" for index in range(layers)],
        "kinds": ["Linear"] * layers,
        "sizes": [1000] * layers,
        "parameters": 1000 * layers,
        "frobenius": whole,
        "frobenius_stderr": noise(whole),
        "gauss_newton": None if objective else part,
        "gauss_newton_stderr": None if objective else noise(part),
        "residual": None if objective else rest,
        "residual_stderr": None if objective else noise(rest),
        "trace": [1.5 * (index + 1) for index in range(layers)],
        "trace_stderr": None if exact else [0.1] * layers,
        "diagonal_mass": [1.6 * (index + 1) for index in range(layers)],
        "diagonal_mass_stderr": None if exact else [0.2] * layers,
        "norm": 2.3456,
        "norm_stderr": error,
        "gauss_newton_norm": None if objective else 1.234,
        "gauss_newton_norm_stderr": None if objective else error,
        "residual_norm": None if objective else 1.987,
        "residual_norm_stderr": None if objective else error,
        "between_layers": 0.913,
        "between_layers_stderr": error,
        "residual_share": None if objective else 0.72,
        "residual_share_stderr": None if objective else error,
        "residual_diagonal": None if objective else 3e-17,
        "residual_diagonal_vanishes": None if objective else True,
        "indefinite_pair": {"layers": ["blocks.0.linear", "blocks.1.linear"], "ratio": 1.9} if exact else None,
        "eigenvalue_bounds": [-1.5, 2.1],
        "method": "exact" if exact else "probes",
        "probes": 0 if exact else 32,
        "hvps": 1000 * layers if exact else 32 * layers,
        "engine": "batched double backward",
    }
    return document(
        "blocks",
        status="ok",
        problem={"model": "Sequential", "parameters": 1000 * layers, "samples": 32, "loss": "ce", "reduction": "mean"},
        result=result,
        theory=None,
        checks={"hvp_symmetry": 1e-15, "hvp_finite_difference": 1e-10},
        verdict=[{"level": "note", "says": "Most of the curvature couples layers.", "because": "|H|", "try": "L-BFGS"}],
        provenance={**PROVENANCE, "argv": ["hessdiag", "blocks", "model.pt"]},
    )


def spectrum(*, exact: bool = False, name: str = "hessian") -> dict[str, Any]:
    nodes = [-0.5, -0.25, *(0.01 * index for index in range(-8, 12)), 0.6, 2.0]
    count, width = len(nodes), 0.05

    def bumps(grid: list[float], centres: list[float], width: float) -> list[float]:
        scale = count * width * math.sqrt(2 * math.pi)
        return [sum(math.exp(-(((x - c) / width) ** 2) / 2) for c in centres) / scale for x in grid]

    grid = [-0.8 + 0.01 * index for index in range(310)]
    decades = [-3.0 + 0.02 * index for index in range(180)]
    values = bumps(grid, nodes, width)
    signs = {
        sign: bumps(decades, [math.log10(abs(x)) for x in nodes if x * factor > 0], 0.1)
        for sign, factor in (("positive", 1), ("negative", -1))
    }

    def error(values: list[float]) -> list[float] | None:
        return None if exact else [0.1 * value for value in values]

    def ends(values: list[float]) -> list[list[float]] | None:
        return None if exact else [[0.8 * value for value in values], [1.3 * value for value in values]]

    unresolved = 0 if exact else 40
    for sign in signs:
        signs[sign][:unresolved] = [None] * unresolved

    def known(values: list[float | None], factor: float) -> list[float | None]:
        return [None if value is None else factor * value for value in values]

    outliers = [
        {"eigenvalue": value, "residual": None if exact else 1e-4 * abs(value), "converged": value != 0.6}
        for value in (-0.5, -0.25, 0.6, 2.0)
    ]
    trace, square = sum(nodes), sum(value**2 for value in nodes)
    mean = trace / count
    radius = 2 * math.sqrt(square / count - mean**2)
    result = {
        "operator": name,
        "method": "exact" if exact else "slq",
        "parameters": count,
        "probes": 0 if exact else 10,
        "steps": 0 if exact else 80,
        "trace": trace,
        "trace_stderr": None if exact else 0.05,
        "trace_interval": None if exact else [trace - 0.11, trace + 0.1],
        "frobenius": math.sqrt(square),
        "frobenius_stderr": None if exact else 0.01,
        "frobenius_interval": None if exact else [math.sqrt(square) - 0.018, math.sqrt(square) + 0.023],
        "lowest": -0.5,
        "highest": 2.0,
        "density": {
            "grid": grid,
            "values": values,
            "stderr": error(values),
            "interval": ends(values),
            "width": width,
            "one_eigenvalue": 1 / (count * width * math.sqrt(2 * math.pi)),
        },
        "log_density": {
            "grid": decades,
            "positive": signs["positive"],
            "positive_stderr": None if exact else known(signs["positive"], 0.1),
            "positive_interval": None if exact else [known(signs["positive"], factor) for factor in (0.8, 1.3)],
            "negative": signs["negative"],
            "negative_stderr": None if exact else known(signs["negative"], 0.1),
            "negative_interval": None if exact else [known(signs["negative"], factor) for factor in (0.8, 1.3)],
            "width": 0.1,
            "one_eigenvalue": 1 / (count * 0.1 * math.sqrt(2 * math.pi)),
            "unresolved_below": None if exact else 10 ** decades[40],
            "unresolved_share": None if exact else [0.04, 0.21],
        },
        "moments": [
            {
                "order": p,
                "value": m,
                "stderr": None if exact else 0.01,
                "interval": None if exact else [m - 0.02, m + 0.02],
            }
            for p in range(1, 5)
            for m in (sum(x**p for x in nodes) / count,)
        ],
        "negative_fraction": 10 / count,
        "negative_fraction_stderr": None,
        "negative_fraction_interval": None if exact else [0.35, 0.5],
        "negative_fraction_bounds": None if exact else [0.35, 0.5],
        "negative_mass": 0.25,
        "negative_mass_stderr": None if exact else 0.01,
        "negative_mass_interval": None if exact else [0.23, 0.27],
        "near_zero_fraction": 0.2,
        "near_zero_fraction_stderr": None,
        "near_zero_fraction_interval": None if exact else [0.17, 0.25],
        "inertia": {"positive": 13, "negative": 10, "zero": 1, "tolerance": 1e-12} if exact else None,
        "outliers": outliers,
        "eigenvalues": nodes if exact else None,
        "hvps": 1000,
        "engine": "batched double backward",
    }
    return document(
        "spectrum",
        status="ok",
        problem={"model": "Sequential", "parameters": count, "samples": 32, "loss": "ce", "reduction": "mean"},
        result=result,
        theory={"semicircle_low": mean - radius, "semicircle_high": mean + radius},
        checks={"hvp_symmetry": 1e-15, "hvp_finite_difference": 1e-10},
        verdict=[{"level": "note", "says": "The Hessian is indefinite.", "because": "10 of 24", "try": "Newton-CG"}],
        provenance={**PROVENANCE, "argv": ["hessdiag", "spectrum", "model.pt"]},
    )


def bounds(components: int = 3, *, sketch: bool = False) -> dict[str, Any]:
    pieces = [{"interval": [2.0 * index - 4.0, 2.0 * index - 3.0], "count": 1 + index} for index in range(components)]
    result = {
        "gershgorin": [-5.0, 9.0],
        "brauer": [-4.5, 8.0],
        "perron": None if sketch else [-2.5, 4.25],
        "block_norm": None if sketch else [-1.5, 4.5],
        "feingold_varga": None if sketch else [-2.0, 5.0],
        "frobenius": None if sketch else [-4.0, 6.0],
        "inner": None if sketch else [-0.25, 3.5],
        "measured": [-0.5, 4.0],
        "measured_residuals": [2e-4, 1e-9],
        "measured_converged": [True, True],
        "method": "sketch" if sketch else "exact",
        "relative_stderr": 0.198 if sketch else None,
        "components": None if sketch else pieces,
        "parameters": sum(piece["count"] for piece in pieces),
        "negative_certificate": {"certain": True, "why": "the diagonal has the entry -0.02"},
        "hvps": 300,
        "engine": "batched double backward",
    }
    return document(
        "bounds",
        status="ok",
        problem={"model": "Sequential", "parameters": result["parameters"], "samples": 32, "loss": "ce"},
        result=result,
        theory=None,
        checks={"hvp_symmetry": 1e-15, "hvp_finite_difference": 1e-10},
        verdict=[{"level": "note", "says": "Negative curvature is certain.", "because": "-0.02", "try": "Newton-CG"}],
        provenance={**PROVENANCE, "argv": ["hessdiag", "bounds", "model.pt"]},
    )


def chain(length: int = 10, *, normal: bool = False) -> dict[str, Any]:
    def size(log: float, spread: float, *, exact: bool) -> dict[str, Any]:
        sample = {
            "median_abs": 0.97 * math.exp(log),
            "median_abs_stderr": 0.03 * math.exp(log),
            "mean_abs": math.exp(log + spread / 2),
            "mean_abs_stderr": 0.02 * math.exp(log + spread / 2),
            "rms": math.exp(log + spread),
            "rms_stderr": 0.1 * math.exp(log + spread),
            "q05": math.exp(log - 1.645 * math.sqrt(spread)),
            "q95": math.exp(log + 1.645 * math.sqrt(spread)),
            "log_median": log - 0.03,
            "log_median_stderr": 0.03,
        }
        return sample | ({
            "probability_above_mean": 0.159,
            "probability_above_mean_stderr": 0.0037,
            "probability_above_rms": 0.0509,
            "probability_above_rms_stderr": 0.0022,
            "theory_median_abs": math.exp(log),
            "theory_mean_abs": math.exp(log + spread / 2),
            "theory_rms": math.exp(log + spread),
            "theory_log_median": log,
            "theory_probability_above_mean": 0.163,
            "theory_probability_above_rms": 0.0534,
        } if exact else {})  # fmt: skip

    def sizes(n: int, *, exact: bool) -> dict[str, Any]:
        off = size(-0.45 * (n - 2), n / 2, exact=exact) if n > 1 else None
        return {
            "gradient": size(-0.45 * (n - 1), n / 2, exact=exact),
            "hessian_diagonal": size(-0.9 * (n - 1), n, exact=exact),
            "hessian_offdiagonal": off,
        }

    lengths = sorted({round(1 + (length - 1) * index / 9) for index in range(10)})
    share = {"measured": 0.0246, "stderr": 0.0015, "theory": 0.02402}
    plateau = {
        "start": 0.6586,
        "gradient": 0.023,
        "output": 0.4737,
        "theory_time": 3.5624,
        "theory_time_bound": 3.302,
        "theory_blow_up_time": 3.5292,
        "flow_time": 3.5624,
        "learning_rate": 1e-3,
        "gradient_descent_steps": 3562.4,
        "rmsprop_steps": 92,
        "theory_rmsprop_steps": 270,
        "rmsprop_default_steps": None,
    }
    result = {
        "length": length,
        "distribution": "normal" if normal else "uniform",
        "scale": 1.7320508,
        "seeds": 10_000,
        **size(-0.42 * length, length / 2, exact=True),
        **sizes(length, exact=True),
        "critical_scale": {"rms": 3**0.5, "mean_abs": 2.0, "median": math.e, "median_at_length": 2.6297},
        "stabilized_order": 2.0,
        "inertia": {
            "definite": share,
            "one_negative": share | {"measured": 0.4546, "stderr": 0.005, "theory": 0.4493},
            "one_positive": share | {"measured": 0.5208, "stderr": 0.005, "theory": 0.5267},
        },
        "plateau": plateau if length > 2 else None,
        "lengths": [
            {"length": n, "product": size(-0.42 * n, n / 2, exact=True), **sizes(n, exact=False)} for n in lengths
        ],
        "agreement": [
            {
                "quantity": "hessian_diagonal",
                "statistic": "log median",
                "measured": -0.93 * length,
                "stderr": 0.03,
                "theory": -0.9 * length,
                "z": -0.01 * length,
            }
        ],
    }
    return document(
        "chain",
        status="ok",
        problem={"model": "builtin:chain", "dtype": "float64", "device": "cpu", "seed": 0},
        result=result,
        theory={"assumes": "independent weights", "exact": True},
        checks={"largest_z": 0.01 * length},
        verdict=[
            {
                "level": "warn",
                "says": "A typical chain shrinks: half of all gradients are smaller than 0.0174.",
                "because": "tau = 1.73205 keeps the second moment, E v^2 = 1",
                "try": "--scale 2.6297 keeps the median at this length",
            }
        ],
        provenance={**PROVENANCE, "argv": ["hessdiag", "chain", "--length", "10"]},
    )
