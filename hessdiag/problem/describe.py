"""What was measured, as the JSON-able `problem` part of a result document."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from hessdiag.errors import LoadError
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.lightning.step import TrainingStep
from hessdiag.problem.problem import Problem


def describe(problem: Problem) -> dict[str, Any]:
    """Describe a problem in plain JSON types.

    Args:
        problem: The problem.

    Returns:
        Model, parameters, layers, batch, loss, device, dtype, hashes and notes. `parameters` is the number N
        that are differentiated; `input_shape` is that of one sample.

    >>> import torch
    >>> problem = Problem(torch.nn.Linear(2, 1), data=[(torch.ones(4, 2), torch.ones(4, 1))], loss="mse")
    >>> described = describe(problem)
    >>> described["parameters"], described["input_shape"], described["loss"]
    (3, [2], 'mse')
    """
    model, source = problem.model, problem.source
    modes = [module.training for module in model.modules() if not any(True for _ in module.children())]
    unique = dict(model.named_parameters())
    loss = problem.criterion
    return {
        "model": type(model).__name__,
        "spec": source.get("model"),
        "weights": source.get("weights"),
        "weights_left_out": dict(source.get("weights_left_out", {})),
        "data": source.get("data"),
        "parameters": problem.n_parameters,
        "parameters_total": sum(parameter.numel() for parameter in unique.values()),
        "frozen": sum(parameter.numel() for parameter in unique.values() if not parameter.requires_grad),
        "tied": len(list(model.named_parameters(remove_duplicate=False))) - len(unique),
        "layers": [
            {"name": layer.name, "kind": layer.kind, "parameters": layer.size} for layer in problem.layer_slices
        ],
        "layers_glob": problem.layers,
        "samples": problem.n_samples,
        "batches": len(problem.data),
        "targets": problem.n_targets,
        "batch_weights": list(problem.batch_weights),
        "averaged_over": {"what": problem.averaged.what, "count": problem.averaged.count},
        "input_shape": _input_shape(problem.data[0]),
        "outputs": problem.n_outputs,
        "synthetic": bool(source.get("synthetic", False)),
        "loss": problem.loss_name,
        "loss_kind": loss.kind if loss is not None else None,
        "loss_definition": loss.definition if loss is not None else _whole(problem),
        "reduction": problem.loss_reduction,
        "device": str(problem.device),
        "dtype": str(problem.dtype).removeprefix("torch."),
        "train_mode": problem.train_mode,
        "modules": len(modes),
        "modules_in_training": sum(modes),
        "seed": problem.seed,
        "weights_sha256": _weights_hash(problem),
        "data_sha256": batches.sha256(problem.data),
        "files": [dict(file) for file in source.get("files", ())],
        "trusted_code": bool(source.get("trusted_code", False)),
        "kernels_forced": list(problem.kernels_forced),
        "notes": list(problem.notes),
    }


def _weights_hash(problem: Problem) -> str | None:
    """Of all weights and buffers; `None` where they are in pieces, of which no process has all."""
    if any(hasattr(parameter, "piece") for parameter in problem.model.parameters()):
        return None
    return batches.hash_tensors(item for item in problem.model.state_dict().values() if isinstance(item, Tensor))


def _whole(problem: Problem) -> str:
    if isinstance(problem.objective, TrainingStep):
        known = problem.loss_of_output
        return (
            known.definition
            if known is not None
            else f"what the training_step of {type(problem.model).__name__} returns"
        )
    return "the model's own .loss" if problem.objective is None else "an objective of (model, batch)"


def _input_shape(batch: Any) -> Any:
    """Shape of one sample: a list, a list of them for several inputs, a mapping of them for a mapping."""
    n = batches.samples(batch)
    try:
        inputs, _ = batches.split(batch)
    except LoadError:
        inputs = batch
    if isinstance(inputs, Mapping):
        found = {str(name): _of_one(value, n) for name, value in inputs.items() if isinstance(value, Tensor)}
        return {name: shape for name, shape in found.items() if shape is not None}
    if isinstance(inputs, PackedSequence):
        return list(inputs.data.shape[1:])
    if isinstance(inputs, list) and len({tensor.shape for tensor in inputs if isinstance(tensor, Tensor)}) > 1:
        return []  # one per sample, of several shapes
    tensors = list(batches.tensors(inputs))
    shapes = [shape for tensor in tensors if (shape := _of_one(tensor, n)) is not None]
    return shapes[0] if len(shapes) == 1 else shapes


def _of_one(tensor: Tensor, samples: int) -> list[int] | None:
    """The shape of a tensor without the dimension that runs over samples; `None` if there is none, as of edges."""
    axis = batches.sample_axis(tensor, samples)
    return None if axis is None else [length for other, length in enumerate(tensor.shape) if other != axis]
