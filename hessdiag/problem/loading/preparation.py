"""What is done to pictures before a model sees them: what was asked for, what its settings say, what it takes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.batches.decoding import BILINEAR, Preparation
from hessdiag.problem.batches.pictures import Folder, common_size
from hessdiag.problem.files.folder import parsed
from hessdiag.problem.loading import fit, hub, synthetic
from hessdiag.problem.spec import Spec

OPTIONS = ("size", "resize", "mean", "std", "channels", "shuffle")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LARGEST = 1 << 24  # numbers in a picture; a config may say anything
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def preparation(
    model: nn.Module, spec: Spec, folder: Folder, options: Mapping[str, Any], most: int | None = None
) -> tuple[Preparation, tuple[str, ...]]:
    """What is done to the pictures of a folder, and notes that say it.

    Args:
        model: The model that will see them.
        spec: Where it is from.
        folder: The pictures.
        options: What was asked for: `OPTIONS` but the last.
        most: Bytes that a picture may unpack to.

    Raises:
        SpecError: if an option has no such value.
        LoadError: if the model's settings are none.
    """
    found = next((wish for wish in _wishes(model, spec) if wish is not None), None)
    wish, origin = found or (_fitting(model, folder, most), "")
    asked = _asked(options, wish)
    height, width = asked.size or (1, 1)
    if height * width * asked.channels > _LARGEST:
        raise LoadError(f"pictures of {height}x{width} are larger than any model's.", "(size=224)")
    return asked, tuple(_said(asked, origin, bool(options.keys() & {"mean", "std"})))


def _said(made: Preparation, origin: str, asked: bool) -> Iterator[str]:
    if origin:
        yield f"data: pictures are prepared as {origin}"
    if made.size is not None:
        height, width = made.size
        how = "whatever their proportions" if made.stretched else "the middle is cut out"
        if made.shorter is not None and not made.stretched:
            how = f"the shorter side becomes {made.shorter}, and {how}"
        yield f"data: brought to {height}x{width}: {how}"
    if made.mean is None and made.std is None:
        yield "data: pixels scaled to [0, 1], not centred; (mean='imagenet') does what most trained networks need"
    else:
        numbers = [", ".join(f"{value:g}" for value in part or ()) for part in (made.mean, made.std)]
        why = " as asked" if asked else ""
        yield f"data: pixels scaled to [0, 1], less the mean ({numbers[0]}), over the deviation ({numbers[1]}){why}"


def _asked(options: Mapping[str, Any], wish: Preparation) -> Preparation:
    """A preparation with what was asked for in its place."""
    channels = options.get("channels", wish.channels)
    if channels not in (1, 3, 4):
        raise SpecError(f"pictures have 1, 3 or 4 channels, not {channels!r}.", "(channels=3)")
    changes: dict[str, Any] = {"channels": channels}
    if "size" in options:
        changes["size"] = _pair(options["size"])
        changes["shorter"] = None
    if "resize" in options:
        changes["shorter"] = _pair(options["resize"])[0]
        changes["stretched"] = False
    mean, std = options.get("mean", wish.mean), options.get("std", wish.std)
    if "imagenet" in (mean, std):
        mean, std = IMAGENET
    changes["mean"], changes["std"] = (_each(name, value, channels) for name, value in (("mean", mean), ("std", std)))
    if changes["std"] is not None and 0.0 in changes["std"]:
        raise SpecError("std must not be zero.", "(std=(0.229, 0.224, 0.225))")
    made = replace(wish, **changes)
    if made.shorter is not None and (made.size is None or made.shorter < min(made.size)):
        raise SpecError("resize is what the shorter side becomes before size is cut out.", "(size=224, resize=256)")
    return made


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair):
        raise SpecError(f"{value!r} is no size of pictures.", "(size=224) or (size=(height, width))")
    return pair[0], pair[1]


def _each(name: str, value: Any, channels: int) -> tuple[float, ...] | None:
    """A number for each channel."""
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise SpecError(
            f"{name}={value!r} is neither 'imagenet' nor a number for each channel.", f"({name}='imagenet')"
        )
    if channels == 1 and len(numbers) == 3:
        return (sum(map(float, numbers)) / 3,)  # of grey: all three weigh alike
    if len(numbers) not in (1, channels):
        raise SpecError(f"{name} has {len(numbers)} numbers, for {channels} channels.", f"({name}='imagenet')")
    return tuple(map(float, numbers)) * (channels if len(numbers) == 1 else 1)


def _wishes(model: nn.Module, spec: Spec) -> Iterator[tuple[Preparation, str] | None]:
    """What settings say that came with the model."""
    yield _of_timm(getattr(model, "pretrained_cfg", None))
    yield _of_torchvision(spec) if spec.kind == "torchvision" else None
    yield _of_hf(model, spec) if spec.kind == "hf" else None
    shape = getattr(model, synthetic.DECLARED, None)
    if isinstance(shape, tuple) and len(shape) == 3:
        yield Preparation(shape[0], (shape[1], shape[2])), "the model's input_shape says"


def _of_timm(settings: Any) -> tuple[Preparation, str] | None:
    if not isinstance(settings, Mapping) or "input_size" not in settings:
        return None
    channels, height, width = settings["input_size"]
    share = settings.get("crop_pct") or 0.875
    made = Preparation(
        channels,
        (height, width),
        math.floor(min(height, width) / share),
        settings.get("crop_mode") == "squash",
        _FILTERS.get(str(settings.get("interpolation")), BILINEAR),
        tuple(settings["mean"]),
        tuple(settings["std"]),
    )
    return made, f"timm's settings of {settings.get('architecture') or 'this model'} say"


def _of_torchvision(spec: Spec) -> tuple[Preparation, str] | None:
    try:
        weights = hub.package("torchvision.models").get_model_weights(spec.source).DEFAULT
        made = weights.transforms()
        (crop,), (resize,) = made.crop_size, made.resize_size
        filtered = _FILTERS.get(str(made.interpolation.value), BILINEAR)
    except (AttributeError, ValueError, TypeError):
        return None
    return (
        Preparation(3, (crop, crop), resize, False, filtered, tuple(made.mean), tuple(made.std)),
        f"torchvision's weights of {spec.source} ask",
    )


def _of_hf(model: nn.Module, spec: Spec) -> tuple[Preparation, str] | None:
    """What preprocessor_config.json says, or else the model's config of its size."""
    found = _settings(spec)
    size: Any = getattr(model.config, "image_size", None)
    channels: Any = getattr(model.config, "num_channels", 3)
    if found is None:
        if not isinstance(size, (int, tuple, list)):
            return None
        return Preparation(channels, _pair(size)), "the model's config says of their size"
    try:
        return _processed(found, channels, size), f"preprocessor_config.json of {spec.source} says"
    except (SpecError, TypeError, ValueError, KeyError) as error:
        raise LoadError(
            f"preprocessor_config.json of {spec.source} is none that is known ({type(error).__name__}).",
            "--data 'FILE.py:f', where f() returns batches with pixel_values",
        ) from error


def _settings(spec: Spec) -> Mapping[str, Any] | None:
    local = Path(spec.source).expanduser() / "preprocessor_config.json"
    if not local.is_file():
        from huggingface_hub import try_to_load_from_cache

        try:
            cached = try_to_load_from_cache(spec.source, local.name, revision=spec.revision)
        except ValueError:  # a path, and no name of the hub's
            return None
        if not isinstance(cached, str):
            return None
        local = Path(cached)
    content = parsed(local)
    return content if isinstance(content, Mapping) else None


def _processed(settings: Mapping[str, Any], channels: int, image_size: Any) -> Preparation:
    size = settings.get("size", image_size)
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or (size["height"], size["width"])
    edge = isinstance(settings.get("size"), Mapping) and "shortest_edge" in settings["size"]
    shorter = _pair(size)[0] if edge else None
    if edge and "crop_pct" in settings and _pair(size)[0] < 384:  # as ConvNeXT does
        shorter, cut = int(size / settings["crop_pct"]), size
    else:
        cut = settings.get("crop_size", size) if settings.get("do_center_crop") else size
    if isinstance(cut, Mapping):
        cut = (cut["height"], cut["width"])
    centred = settings.get("do_normalize", True)
    mean, std = (settings.get(name) if centred else None for name in ("image_mean", "image_std"))
    return Preparation(
        channels,
        _pair(cut),
        shorter,
        not edge,
        settings.get("resample", BILINEAR) if settings.get("resample", BILINEAR) in _FILTERS.values() else BILINEAR,
        None if mean is None else _each("mean", mean, channels),
        None if std is None else _each("std", std, channels),
    )


def _fitting(model: nn.Module, folder: Folder, most: int | None) -> Preparation:
    """What a model takes by trial: pictures as they are, or brought to the one usual size that it takes."""
    own = common_size(folder, most)
    layer = synthetic.first_layer(model)
    channels = getattr(layer, "in_channels", None) if not isinstance(layer, nn.Linear) else None
    counts = [channels] if channels in (1, 3, 4) else [3, 1]
    if own is not None and (fits := _first(model, [(count, *own) for count in counts])):
        return Preparation(fits[0])
    if isinstance(layer, nn.Linear):
        sides = [(count, math.isqrt(layer.in_features // count)) for count in counts]
        fits = _first(model, [(count, side, side) for count, side in sides if count * side**2 == layer.in_features])
        return Preparation(fits[0], fits[1:]) if fits else Preparation()
    usual = [(counts[0], size, size) for size in synthetic.SPATIAL_SIZES]
    usual = [shape for shape in usual if fit.takes(model, *_zeros(shape))]
    return Preparation(counts[0], usual[0][1:] if len(usual) == 1 else None)


def _first(model: nn.Module, shapes: Sequence[tuple[int, int, int]]) -> Any:
    return next((shape for shape in shapes if fit.takes(model, *_zeros(shape))), None)


def _zeros(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures, and the same as vectors."""
    whole = torch.zeros(2, *shape, dtype=torch.float64)
    return whole, whole.flatten(1)
