"""Inputs that may suit a model with a config of Hugging Face's form: tokens, images, sound."""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from hessdiag.errors import LoadError
from hessdiag.problem.wrappers import beneath

Batch = dict[str, Any]
Draw = Callable[[int, torch.Generator], Batch]

SEQUENCE = 16
LARGEST = 1 << 22  # numbers in a sample; a config may say anything
FRAMES = 20  # of sound, after the convolutions
CHOICES = 4
IMAGE_SIZES = (32, 224)  # where the config names none


def arguments(model: nn.Module) -> tuple[str, ...]:
    """Names of what a model's forward pass takes."""
    try:
        return tuple(inspect.signature(beneath(model).forward).parameters)
    except (AttributeError, TypeError, ValueError):
        return ()


def inputs(model: nn.Module) -> Iterator[tuple[Draw, str]]:
    """Inputs that may suit a model, likeliest first: a function that draws so many samples, and what they are."""
    names, main = arguments(model), getattr(model, "main_input_name", "input_ids")
    both = {"input_ids", "pixel_values"} <= set(names) and "return_loss" in names  # pairs of texts and images
    if both:
        for size in _image_sizes(model):
            yield _both(_images(model, size), tokens(model, ())), "random texts and Gaussian images"
    elif main == "input_ids":
        if type(model).__name__.endswith("ForMultipleChoice"):
            yield tokens(model, (CHOICES,)), f"{CHOICES} choices of {SEQUENCE} uniform tokens"
        yield tokens(model, ()), f"{SEQUENCE} uniform tokens"
    elif main == "pixel_values":
        for size in _image_sizes(model):
            yield _images(model, size), f"Gaussian images of {size[0]}×{size[1]}"
    else:
        for shape in _sound_shapes(model):
            yield _gaussian(main, shape), f"Gaussian inputs of shape {shape}"


def _both(first: Draw, second: Draw) -> Draw:
    return lambda n, generator: first(n, generator) | second(n, generator)


def _gaussian(name: str, shape: tuple[int, ...]) -> Draw:
    if not all(length > 0 for length in shape) or math.prod(shape) > LARGEST:
        raise LoadError(f"its config asks for inputs of shape {shape}, and none so large are made up.")
    return lambda n, generator: {name: torch.randn((n, *shape), generator=generator, dtype=torch.float64)}


def vocabulary(model: nn.Module) -> int:
    """How many tokens a model knows; 0 if its config does not say."""
    config: Any = model.config
    return int(getattr(_config(model, "text"), "vocab_size", 0) or getattr(config, "vocab_size", 0))


def _config(model: nn.Module, part: str) -> Any:
    """The config of a part of the model, where it has one of its own."""
    config: Any = model.config
    return getattr(config, f"{part}_config", None) or config


def tokens(model: nn.Module, before: tuple[int, ...]) -> Draw:
    """Uniform tokens without the special ones; an encoder's text ends with the token that says so."""
    config: Any = model.config
    texts = _config(model, "text")
    own = [value for name, value in vars(texts).items() if name.endswith("_token_id")]
    special = {item for value in own for item in (value if isinstance(value, (list, tuple)) else [value])}
    size = vocabulary(model)
    plain = [token for token in range(size) if token not in special] or list(range(size))
    allowed = torch.tensor(plain)
    end: Any = getattr(texts, "eos_token_id", None)
    length = min(SEQUENCE, getattr(texts, "max_position_embeddings", SEQUENCE) or SEQUENCE)
    ends = getattr(config, "is_encoder_decoder", False) and isinstance(end, int) and end < size

    def draw(n: int, generator: torch.Generator) -> Batch:
        tokens = allowed[torch.randint(len(allowed), (n, *before, length), generator=generator)]
        if ends:
            tokens[..., -1] = int(end)
        return {"input_ids": tokens}

    return draw


def _image_sizes(model: nn.Module) -> Iterator[tuple[int, int]]:
    size = getattr(_config(model, "vision"), "image_size", None)
    if isinstance(size, int):
        yield (size, size)
    elif isinstance(size, (tuple, list)) and len(size) == 2:
        yield (int(size[0]), int(size[1]))
    else:
        for side in IMAGE_SIZES:
            yield (side, side)


def _images(model: nn.Module, size: tuple[int, int]) -> Draw:
    images = _config(model, "vision")
    frames = (images.num_frames,) if isinstance(getattr(images, "num_frames", None), int) else ()
    return _gaussian("pixel_values", (*frames, getattr(images, "num_channels", 3), *size))


def _sound_shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """Of one sample of sound: samples for convolutions, else bands of a spectrogram over time, or time over bands."""
    config: Any = model.config
    strides, kernels = getattr(config, "conv_stride", None), getattr(config, "conv_kernel", None)
    if isinstance(strides, (tuple, list)) and isinstance(kernels, (tuple, list)):
        yield (math.prod(strides) * FRAMES + sum(kernels),)
    bands, length = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    if isinstance(bands, int):
        if isinstance(length, int):
            yield (bands, 2 * length)
        if isinstance(getattr(config, "max_length", None), int):
            yield (config.max_length, bands)
