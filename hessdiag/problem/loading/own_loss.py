"""Models that compute their own loss from labels, as Hugging Face's do: batches with labels that suit them.

What a model takes is told by its forward pass and its config, and tried.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError, first_line
from hessdiag.problem.batches import indices
from hessdiag.problem.batches.batch import forward, placed, real_parameter
from hessdiag.problem.batches.data import DEFAULT_BATCH_SIZE
from hessdiag.problem.loading import own_inputs
from hessdiag.problem.loading.own_inputs import SEQUENCE, Batch, Draw
from hessdiag.problem.losses.loss import IGNORED, Reduction, attached
from hessdiag.problem.modes import mode
from hessdiag.problem.wrappers import beneath

MASKED = 0.15  # of the tokens that a masked language model predicts, as BERT was trained
_SPAN = ("start_positions", "end_positions")


def takes_labels(model: nn.Module) -> bool:
    """Whether a model's forward pass takes labels and its config says what they may be."""
    names = own_inputs.arguments(model)
    return hasattr(model, "config") and ("labels" in names or set(_SPAN) <= set(names) or "return_loss" in names)


def computes_loss(model: nn.Module) -> bool:
    """Whether a model computes its own loss: of labels, or of its inputs alone, as masked autoencoders do."""
    return takes_labels(model) or (
        hasattr(model, "config") and any(_loss_of(model, inputs) for inputs, _ in own_inputs.inputs(model))
    )


def _loss_of(model: nn.Module, inputs: Draw) -> bool:
    """Whether a model gives a loss for inputs without labels."""
    return attached(_output(model, inputs(2, _generator(0)))) is not None


def reduction(model: nn.Module) -> Reduction | None:
    """How a model's own loss joins samples, where that is known: as a mean, unless it aligns sequences or pairs."""
    aligns = type(beneath(model)).__name__.endswith("ForCTC")
    return "mean" if takes_labels(model) and "return_loss" not in own_inputs.arguments(model) and not aligns else None


def make(
    model: nn.Module, *, batch_size: int | None = None, batches: int | None = None, seed: int = 0
) -> tuple[list[Batch], tuple[str, ...]]:
    """Synthetic batches with labels for a model that computes its own loss.

    Tokens are uniform, special ones left out; images are Gaussian. A causal language model predicts the tokens
    themselves, a masked one 15 % of them; other labels are uniform classes, or Gaussian for regression.

    Args:
        model: A model that `computes_loss`.
        batch_size: Samples per batch; 32 by default.
        batches: How many batches; 1 by default.
        seed: Of the generator; the global random state is not touched.

    Returns:
        Mappings on the CPU, and notes.

    Raises:
        LoadError: if the model gives no loss for anything that was tried.
    """
    size, count = batch_size or DEFAULT_BATCH_SIZE, max(1, batches or 1)
    problem = "none of the usual inputs suit it"
    for inputs, what in own_inputs.inputs(model):
        try:
            labelled, of = _labels(model, inputs)
            trial = labelled(inputs(2, _generator(seed)), _generator(seed))
            problem = _no_loss(model, trial) or ""
        except Exception as error:  # whether a model takes this is the question
            problem = first_line(error)
        if not problem:
            generator = _generator(seed)
            taken = [labelled(inputs(size, generator), generator) for _ in range(count)]
            return taken, (f"data: synthetic, {size} samples of {what} with {of}; --data FILE uses yours",)
    raise LoadError(
        f"no data was given, and none with labels could be made up for this {type(model).__name__}: {problem}",
        "--data batch.pt, a mapping with its inputs and labels",
    )


def labelled(model: nn.Module, loss: Any, batches: list[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Batches of a model that computes its own loss, under the names by which it takes inputs and labels.

    `(x, y)` becomes a mapping. A mapping of tokens without labels gets them where the model predicts the next token:
    the tokens themselves, which the model shifts; padding is not predicted. Batches of other models and for other
    losses stay as they are, and so do `(x, y)` whose targets are the next tokens already.

    Args:
        model: Any model.
        loss: As it was asked for; "output" and `None` concern this.
        batches: Where the model is.

    Returns:
        The batches, and notes.

    Raises:
        LoadError: if the model's own loss is asked for, and would shift targets that are shifted.
    """
    names = own_inputs.arguments(model)
    if loss not in (None, "output") or not takes_labels(model) or "labels" not in names:
        return batches, ()
    causal = is_causal(model)
    notes: dict[str, None] = {}

    def one(batch: Any) -> Any:
        if isinstance(batch, Mapping):
            tokens = batch.get("input_ids")
            if not causal or not isinstance(tokens, Tensor) or {"labels", "label"} & batch.keys():
                return batch
            notes["data: the tokens themselves are the labels, which the model shifts"] = None
            return {**batch, "labels": _predicted(tokens, batch.get("attention_mask"))}
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Tensor)):
            return batch
        inputs, labels = batch
        if isinstance(inputs, Mapping):
            return {**inputs, "labels": _typed(model, labels)}
        several = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        if causal and _are_next(several[0], labels):
            if loss == "output":
                raise LoadError(
                    "the targets are the next tokens already, and the model's own loss would shift them once more.",
                    "--loss ce, or the tokens themselves as targets",
                )
            notes["data: the targets are the next tokens already, which the model's own loss would shift"] = None
            return batch
        first = getattr(model, "main_input_name", names[0])
        keys = names if len(several) > 1 else (first,)
        return {**dict(zip(keys, several, strict=False)), "labels": _typed(model, labels)}

    return [one(batch) for batch in batches], tuple(notes)


def _predicted(tokens: Tensor, mask: Any) -> Tensor:
    return tokens.long() if mask is None else tokens.long().masked_fill(mask == 0, IGNORED)


def _are_next(tokens: Any, labels: Tensor) -> bool:
    """Whether labels are the next tokens of each sequence, so that a model that shifts them would shift twice."""
    if not isinstance(tokens, Tensor) or tokens.shape != labels.shape or tokens.ndim < 2 or tokens.shape[-1] < 2:
        return False
    counted = labels != IGNORED
    same = bool(((labels == tokens) | ~counted).all())
    return not same and bool(((labels[..., :-1] == tokens[..., 1:]) | ~counted[..., :-1]).all())


def _typed(model: nn.Module, labels: Tensor) -> Tensor:
    """Labels as the loss takes them: real ones for regression and several labels at once."""
    parameter = real_parameter(model) if _is_real(model) else None
    return labels if parameter is None else labels.to(parameter.dtype)


def _is_real(model: nn.Module) -> bool:
    config: Any = model.config
    problem, outputs = getattr(config, "problem_type", None), getattr(config, "num_labels", 2)
    return problem in ("regression", "multi_label_classification") or (problem is None and outputs == 1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


Label = Callable[[Batch, torch.Generator], Batch]


def _labels(model: nn.Module, inputs: Draw) -> tuple[Label, str]:
    """How a model's labels are drawn, and what they are, from what it puts out without any."""
    names, config = own_inputs.arguments(model), model.config
    if not takes_labels(model):
        return lambda batch, _: batch, "no labels: the loss is of the inputs alone"
    if "return_loss" in names and "labels" not in names:
        return lambda batch, _: {**batch, "return_loss": True}, "the pairs themselves as labels"
    if set(_SPAN) <= set(names) and "labels" not in names:
        return _spans, "uniform spans as labels"
    output = _output(model, inputs(2, _generator(0)))
    logits = getattr(output, "logits", None)
    sequences = not isinstance(logits, Tensor) or logits.ndim == 3
    if getattr(config, "is_encoder_decoder", False) and sequences:
        return _classes(own_inputs.vocabulary(model), (SEQUENCE,)), f"{SEQUENCE} uniform tokens to write as labels"
    if not isinstance(logits, Tensor):
        return _pretraining(model, names)
    if logits.ndim == 4:
        return _pixels(logits.shape[1]), f"uniform classes of {logits.shape[1]} for each pixel as labels"
    if logits.ndim == 3 and logits.shape[-1] >= own_inputs.vocabulary(model) > 0:
        if is_causal(model):
            return lambda batch, _: {**batch, "labels": batch["input_ids"].clone()}, (
                "the tokens themselves as labels, which the model shifts"
            )
        return _masking(model), f"{MASKED:.0%} of the tokens masked, and these as labels".replace("%", " %")
    if logits.ndim == 2 and _is_real(model):
        return _real(model, tuple(logits.shape[1:]))
    return _classes(logits.shape[-1], tuple(logits.shape[1:-1])), f"uniform classes of {logits.shape[-1]} as labels"


def _output(model: nn.Module, batch: Batch) -> Any:
    """What a model puts out, or `None` if it takes no such batch, which nobody is warned of."""
    with (
        contextlib.suppress(Exception),
        warnings.catch_warnings(),
        torch.no_grad(),
        mode(model, train=False),
        indices.watched(model),
    ):
        warnings.simplefilter("ignore")
        return forward(model, placed(batch, model))
    return None


def _no_loss(model: nn.Module, batch: Batch) -> str | None:
    """Why a model gives no loss for a batch; `None` if it does."""
    with torch.enable_grad(), mode(model, train=False), indices.watched(model):
        loss = attached(forward(model, placed(batch, model)))
    if loss is None or loss.numel() != 1:
        return "it returns no loss"
    return None if bool(loss.isfinite()) and loss.requires_grad else f"its loss is {float(loss.detach())}"


def is_causal(model: nn.Module) -> bool:
    """Whether a model predicts the next token: it never looks at the first label, and does at the others."""
    vocabulary = own_inputs.vocabulary(model)
    if (
        vocabulary < 2
        or "labels" not in own_inputs.arguments(model)
        or getattr(model.config, "is_encoder_decoder", False)
    ):
        return False
    tokens = own_inputs.tokens(model, ())(2, _generator(0))["input_ids"]
    losses = []
    for ignored in (None, 0, 1):
        labels = tokens.clone()
        if ignored is not None:
            labels[:, ignored] = IGNORED
        loss = attached(_output(model, {"input_ids": tokens, "labels": labels}))
        if loss is None:
            return False
        losses.append(loss)
    return torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


def _classes(count: int, places: tuple[int, ...]) -> Label:
    def label(batch: Batch, generator: torch.Generator) -> Batch:
        return {**batch, "labels": torch.randint(count, (_samples(batch), *places), generator=generator)}

    return label


def _samples(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _spans(batch: Batch, generator: torch.Generator) -> Batch:
    tokens = batch["input_ids"]
    ends = torch.randint(tokens.shape[-1], (len(tokens), 2), generator=generator).sort(dim=1)[0]
    return {**batch, **dict(zip(_SPAN, ends.unbind(1), strict=True))}


def _pretraining(model: nn.Module, names: tuple[str, ...]) -> tuple[Label, str]:
    """Masked tokens and, where the model asks for it, whether one sentence follows the other."""
    mask = _masking(model)

    def label(batch: Batch, generator: torch.Generator) -> Batch:
        masked = mask(batch, generator)
        if "next_sentence_label" not in names:
            return masked
        return {**masked, "next_sentence_label": torch.randint(2, (_samples(batch),), generator=generator)}

    return label, "masked tokens as labels"


def _pixels(classes: int) -> Label:
    return lambda batch, generator: _classes(classes, tuple(batch["pixel_values"].shape[-2:]))(batch, generator)


def _masking(model: nn.Module) -> Label:
    """Some tokens of each text hidden, and labels there only; by a random token where the config names no mask."""
    config: Any = model.config
    hidden, vocabulary = getattr(config, "mask_token_id", None), own_inputs.vocabulary(model)

    def label(batch: Batch, generator: torch.Generator) -> Batch:
        tokens = batch["input_ids"].clone()
        many = max(1, round(MASKED * tokens.shape[-1]))
        chosen = torch.rand(tokens.shape, generator=generator).argsort(dim=-1) < many
        labels = tokens.masked_fill(~chosen, IGNORED)
        others = torch.randint(vocabulary, tokens.shape, generator=generator)
        replaced = torch.full_like(tokens, hidden) if isinstance(hidden, int) and hidden < vocabulary else others
        return {**batch, "input_ids": torch.where(chosen, replaced, tokens), "labels": labels}

    return label


def _real(model: nn.Module, shape: tuple[int, ...]) -> tuple[Label, str]:
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    shape = () if shape == (1,) else shape

    def label(batch: Batch, generator: torch.Generator) -> Batch:
        size = (_samples(batch), *shape)
        if several:
            return {**batch, "labels": torch.randint(2, size, generator=generator).double()}
        return {**batch, "labels": torch.randn(size, generator=generator, dtype=torch.float64)}

    return label, "uniform 0/1 labels" if several else "Gaussian labels"
