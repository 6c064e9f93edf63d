"""Readings of a healthy network made up by hand, which tests spoil in one place."""

from dataclasses import replace
from typing import Any

from hessdiag.questions.check.readings import (
    InputReading,
    LayerReading,
    OutputReading,
    RangeReading,
    StepReading,
    TargetReading,
)
from hessdiag.questions.check.result import Check
from hessdiag.questions.common.result import ModelSubject

ADAM = StepReading(optimizer="Adam", given=True, lr=1e-3, settings={"eps": 1e-8}, floor=1e-8)
SGD = StepReading(optimizer="SGD", given=True, lr=0.1, settings={})


def layer(name: str, depth: int | None, **changes: Any) -> LayerReading:
    """One of the layers of a healthy ReLU network."""
    return replace(
        LayerReading(
            layer=name,
            kind="Linear",
            parameters=32 * 33,
            depth=depth,
            activation="relu",
            fan_in=32,
            units=32,
            input_rms=0.8,
            input_variation=0.7,
            output_rms=1.1,
            output_mean=0.0,
            output_variation=0.8,
            signal_rms=0.8,
            signal_variation=0.7,
            cosine=0.5,
            dead_fraction=0.0,
            saturated_fraction=0.0,
            identical_fraction=0.0,
            weight_rms=0.25,
            weight_gain=1.414,
            bias_mean=0.0,
            bias_rms=0.0,
            gradient_rms=1e-3,
            gradient_zero_fraction=0.0,
            output_gradient_rms=0.2,
            input_gradient_rms=0.2,
        ),
        **changes,
    )


def healthy(depth: int = 5, step: StepReading | None = ADAM, **changes: Any) -> Check:
    """A network of so many layers without a defect."""
    layers = [layer(str(2 * place), place + 1) for place in range(depth)]
    layers[-1] = replace(layers[-1], activation=None, units=10, dead_fraction=0.0)
    return replace(
        Check(
            problem=ModelSubject(loss="ce", loss_kind="ce"),
            layers=tuple(layers),
            inputs=(
                InputReading(
                    name="0",
                    kind="real",
                    entries=64,
                    rms=1.0,
                    mean=0.0,
                    stdev=1.0,
                    low=-3.0,
                    high=3.0,
                    variation=0.9,
                    constant_share=0.0,
                    duplicated_share=0.0,
                    steepest=2.0,
                    taken_by="0",
                ),
            ),
            targets=TargetReading(
                kind="classes", count=128, classes=10, seen=10, largest_share=0.15, neighbours_z=20.0
            ),
            output=OutputReading(
                loss=2.4,
                chance=2.29,
                uniform=2.303,
                rms=0.5,
                mean=0.0,
                variation=0.7,
                spread=0.5,
                low=-2.0,
                high=2.0,
                gradient_rms=0.3,
            ),
            numbers=RangeReading(dtype="float32", largest=1e-38, zero_share=0.0, subnormal_share=0.0),
            step=step,
        ),
        **changes,
    )


def spoiled(check: Check, place: int, **changes: Any) -> Check:
    """The same with one layer changed."""
    layers = list(check.layers)
    layers[place] = replace(layers[place], **changes)
    return replace(check, layers=tuple(layers))


def with_input(check: Check, **changes: Any) -> Check:
    """The same with other inputs."""
    return replace(check, inputs=(replace(check.inputs[0], **changes),))


def with_output(check: Check, **changes: Any) -> Check:
    """The same with another output."""
    assert check.output is not None
    return replace(check, output=replace(check.output, **changes))


def with_targets(check: Check, **changes: Any) -> Check:
    """The same with other targets."""
    assert check.targets is not None
    return replace(check, targets=replace(check.targets, **changes))
