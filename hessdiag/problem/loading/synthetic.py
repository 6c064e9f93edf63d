"""A batch for a model that came without one: Gaussian inputs of the shape that its first layer takes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError, said
from hessdiag.problem.batches import indices
from hessdiag.problem.batches.batch import forward, output_tensor, placed
from hessdiag.problem.batches.data import DEFAULT_BATCH_SIZE, as_batches
from hessdiag.problem.loading import own_inputs
from hessdiag.problem.losses.loss import resolve
from hessdiag.problem.modes import mode

DECLARED = "input_shape"  # attribute by which a model says what one sample is like
RECONSTRUCTS = "reconstructs_input"  # and that its targets are its inputs

SPATIAL_SIZES = (32, 28, 64, 224, 8)
SEQUENCE = 16
TEACHER_WIDTH = 32
MOST = 1 << 27  # numbers in all synthetic inputs: 1 GiB
_LARGEST = 1 << 22  # numbers in a sample

_CONV_DIMENSIONS: dict[type[nn.Module], int] = {
    nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3,
    nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3,
    nn.BatchNorm2d: 2, nn.BatchNorm3d: 3,
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """Shape of one sample, the vocabulary if it holds tokens, and how many such inputs the model takes."""

    shape: tuple[int, ...]
    vocabulary: int | None = None
    copies: int = 1

    def draw(self, samples: int, generator: torch.Generator) -> Any:
        """Inputs of so many samples: standard normal in float64, or uniform tokens."""
        size = (samples, *self.shape)
        drawn = [
            torch.randn(size, generator=generator, dtype=torch.float64)
            if self.vocabulary is None
            else torch.randint(self.vocabulary, size, generator=generator)
            for _ in range(self.copies)
        ]
        return drawn[0] if self.copies == 1 else tuple(drawn)


def first_layer(model: nn.Module) -> nn.Module | None:
    """The first module with parameters of its own whose kind tells what it takes."""
    return next((module for module in model.modules() if any(True for _ in forms(module))), None)


def forms(layer: nn.Module) -> Iterator[Form]:
    """Inputs that would suit a layer, likeliest first; nothing for a layer that does not tell.

    >>> next(forms(nn.Linear(8, 3))).shape
    (8,)
    """
    conv = next((dimensions for kind, dimensions in _CONV_DIMENSIONS.items() if isinstance(layer, kind)), None)
    channels = getattr(layer, "in_channels", None) or getattr(layer, "num_features", None)
    if isinstance(layer, nn.Linear):
        yield Form((layer.in_features,))
        yield Form((SEQUENCE, layer.in_features))
    elif isinstance(layer, nn.Bilinear) and layer.in1_features == layer.in2_features:
        yield Form((layer.in1_features,), copies=2)
    elif conv is not None and isinstance(channels, int):
        for size in SPATIAL_SIZES:
            yield Form((channels, *(size,) * conv))
    elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        yield Form((SEQUENCE,), vocabulary=layer.num_embeddings)
        yield Form((), vocabulary=layer.num_embeddings)
    elif isinstance(layer, nn.RNNBase):
        yield Form((SEQUENCE, layer.input_size))
    elif isinstance(layer, (nn.RNNCell, nn.LSTMCell, nn.GRUCell)):
        yield Form((layer.input_size,))
    elif isinstance(layer, nn.MultiheadAttention):
        for copies in (1, 2, 3):  # an encoder, an encoder with a decoder, the attention alone
            yield Form((SEQUENCE, layer.embed_dim), copies=copies)
    elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine:
        yield Form(tuple(layer.normalized_shape))
        yield Form((SEQUENCE, *layer.normalized_shape))
    elif isinstance(layer, nn.BatchNorm1d) and layer.affine:
        yield Form((layer.num_features,))
        yield Form((layer.num_features, SEQUENCE))


def make(
    model: nn.Module, loss: Any, *, batch_size: int | None = None, batches: int | None = None, seed: int = 0
) -> tuple[list[Any], tuple[str, ...]]:
    """Synthetic batches for a model.

    Args:
        model: Only its shapes matter.
        loss: Name or criterion; it decides the targets: a random one-hidden-layer tanh teacher of the inputs
            for regression, as in the vanishing-curvature paper, and uniform classes for classification. A model with
            `reconstructs_input = True` has its inputs as targets; one with an `input_shape` is given that.
        batch_size: Samples per batch; 32 by default.
        batches: How many batches; 1 by default.
        seed: Of the generator; the global random state is not touched.

    Returns:
        Batches `(x, y)` in float64 on the CPU, and notes.

    Raises:
        LoadError: if no shape is found that the model takes.

    >>> taken, _ = make(nn.Linear(8, 3), "ce")
    >>> taken[0][0].shape, taken[0][1].dtype
    (torch.Size([32, 8]), torch.int64)
    """
    kind = target_kind(loss)
    generator = torch.Generator().manual_seed(seed)
    size = batch_size or DEFAULT_BATCH_SIZE
    if kind == "teacher" and reconstructs(model):
        kind = "inputs"
    form, output = _probe(model)
    count = max(1, batches or 1)
    largest = MOST // max(form.copies * math.prod(form.shape), math.prod(output[1:]), TEACHER_WIDTH)
    if size * count > largest:
        flag = f"--batch-size {largest // count}" if count <= largest else f"--batches {max(largest // size, 1)}"
        raise LoadError(
            f"no data was given, and at most {largest:,} samples of shape {form.shape} are made up, "
            f"not {size * count:,}.",
            flag,
        )
    inputs = form.draw(size * count, generator)
    make_targets = {"classes": _classes, "bits": _bits, "teacher": _teacher, "inputs": lambda inputs, *_: inputs}
    targets = make_targets[kind](inputs, form, output, generator)
    said = {
        "classes": "uniform classes",
        "bits": "uniform 0/1 targets",
        "teacher": "targets from a random one-hidden-layer tanh teacher",
        "inputs": "the inputs as targets",
    }[kind]
    what = "Gaussian inputs" if form.vocabulary is None else f"uniform tokens of {form.vocabulary}"
    taken, _ = as_batches((inputs, targets), batch_size=size)
    note = f"data: synthetic, {size} samples of {what} of shape {form.shape} with {said}; --data FILE uses yours"
    return taken, (note,)


def reconstructs(model: nn.Module) -> bool:
    """Whether a model says that its targets are its inputs."""
    return bool(getattr(model, RECONSTRUCTS, False))


def target_kind(loss: Any) -> str:
    """What targets a loss takes: "classes", "bits" or real numbers from a "teacher".

    Raises:
        LoadError: if the model's own loss is asked for, which needs labels that only the user knows.
    """
    if loss == "output":
        raise LoadError(
            "--loss output needs a batch with labels; none was given.",
            "--data batch.pt, a mapping with labels",
        )
    kind = resolve(loss).kind if loss is not None else None
    if kind in ("ce", "nll") or isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return "classes"
    return (
        "bits"
        if kind in ("bce", "bce_probabilities") or isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss))
        else "teacher"
    )


def _probe(model: nn.Module) -> tuple[Form, tuple[int, ...]]:
    """The first form that passes through the model, and the shape of the output for two samples."""
    layer = first_layer(model)
    declared = getattr(model, DECLARED, None)
    example = getattr(model, "example_input_array", None)  # Lightning's name for it
    declared = example.shape[1:] if declared is None and isinstance(example, Tensor) else declared
    known = [Form(tuple(declared))] if isinstance(declared, tuple) else []
    configured = list(_configured(model))
    tried, why = [], ""
    for form in (*known, *configured, *(forms(layer) if layer is not None else ())):
        if form in configured or not configured:  # where the config tells the shape, others are no news
            tried.append(str((DEFAULT_BATCH_SIZE, *form.shape)))
        if not _drawable(form):
            continue
        inputs = placed(form.draw(2, torch.Generator().manual_seed(0)), model)
        try:
            with mode(model, train=False), indices.watched(model):
                shape = tuple(output_tensor(forward(model, inputs)).shape)
        except Exception as error:  # whether it passes is the question
            why = why or f" ({(error.what if isinstance(error, LoadError) else said(error)).rstrip('.')})"
            continue
        if shape[:1] == (2,):
            return form, shape
    alone = " alone" if configured else ""
    what = (
        f"inputs of shape {' or '.join(tried)}{alone} do not pass"
        if tried
        else "no layer tells the shape of its inputs"
    )
    mapping = ", with --loss; or batch.pt, a mapping with all that its forward pass needs"
    raise LoadError(
        f"no data was given, and none could be made up for this {type(model).__name__}: {what}{why}.",
        "--data batch.npz" + (mapping if hasattr(model, "config") else ""),
    )


def _configured(model: nn.Module) -> Iterator[Form]:
    """Real inputs by what a config of Hugging Face's form says of them."""
    if not hasattr(model, "config") or "main_input_name" not in dir(model):
        return
    for draw, _ in own_inputs.inputs(model):
        drawn = list(draw(1, torch.Generator()).values())
        if len(drawn) == 1 and drawn[0].is_floating_point():
            yield Form(tuple(drawn[0].shape[1:]))


def _drawable(form: Form) -> bool:
    """Whether a sample has a size that can be drawn; a file may say anything of its layers."""
    sizes = (*form.shape, 1 if form.vocabulary is None else form.vocabulary)
    return all(isinstance(size, int) and size > 0 for size in sizes) and math.prod(form.shape) <= _LARGEST


def _flat(inputs: Any, form: Form) -> Tensor:
    """Inputs as a float64 matrix (samples, features); tokens spread over [-1, 1]."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    flat = torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1).double()
    return flat if form.vocabulary is None else 2 * flat / form.vocabulary - 1


def _teacher(inputs: Any, form: Form, output: tuple[int, ...], generator: torch.Generator) -> Tensor:
    x = _flat(inputs, form)
    features, outputs = x.shape[1], math.prod(output[1:])
    first = torch.randn(features, TEACHER_WIDTH, generator=generator, dtype=x.dtype) / math.sqrt(features)
    second = torch.randn(TEACHER_WIDTH, outputs, generator=generator, dtype=x.dtype) / math.sqrt(TEACHER_WIDTH)
    return (torch.tanh(x @ first) @ second).reshape(len(x), *output[1:])


def _classes(inputs: Any, form: Form, output: tuple[int, ...], generator: torch.Generator) -> Tensor:
    sequence = form.vocabulary is not None or len(form.shape) == 2  # classes come last there, and second elsewhere
    last = len(output) == 2 or (sequence and len(output) == 3)
    classes, rest = (output[-1], output[1:-1]) if last else (output[1], output[2:]) if len(output) > 2 else (2, ())
    samples = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
    return torch.randint(classes, (samples, *rest), generator=generator)


def _bits(inputs: Any, form: Form, output: tuple[int, ...], generator: torch.Generator) -> Tensor:
    samples = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
    return torch.randint(2, (samples, *output[1:]), generator=generator).double()
