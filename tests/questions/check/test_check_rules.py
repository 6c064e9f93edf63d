"""Rules of `check`, each on a healthy network's readings with one of them spoiled."""

from dataclasses import replace
from math import inf, sqrt

import pytest
from check_by_hand import ADAM, SGD, healthy, layer, spoiled, with_input, with_output, with_targets

from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.gradients import gradients
from hessdiag.questions.check.causes.inputs import inputs
from hessdiag.questions.check.causes.modes import modes
from hessdiag.questions.check.causes.numbers import numbers
from hessdiag.questions.check.causes.output import output
from hessdiag.questions.check.causes.ranking import RULES
from hessdiag.questions.check.causes.signal import lost, signal
from hessdiag.questions.check.causes.targets import targets
from hessdiag.questions.check.causes.units import units
from hessdiag.questions.check.causes.weights import weights
from hessdiag.questions.check.readings import ModeReading, RangeReading, TargetReading
from hessdiag.questions.check.result import Check
from hessdiag.questions.common.result import ModelSubject


def only(found: list[Candidate]) -> Candidate:
    """The one candidate that a rule proposes."""
    assert len(found) == 1, [one.says for one in found]
    return found[0]


@pytest.mark.parametrize("step", [ADAM, SGD, None])
@pytest.mark.parametrize("depth", [1, 2, 5, 40])
def test_a_healthy_network_has_no_candidates(depth, step):
    assert [one for rule in RULES for one in rule(healthy(depth, step))] == []


def test_grades_lie_between_the_bounds_by_the_logarithm_in_both_directions():
    assert grade(9.9, 10, 1000) == 0.0
    assert [grade(value, 10, 1000) for value in (10, 100, 1000, 1e9, inf)] == pytest.approx([0.4, 0.65, 0.9, 0.9, 0.9])
    assert [grade(value, 1e-2, 1e-4) for value in (1e-2, 1e-3, 1e-4, 0.0)] == pytest.approx([0.4, 0.65, 0.9, 0.9])
    assert grade(None, 1, 2) == grade(float("nan"), 1, 2) == grade(inf, 1e-2, 1e-4) == 0.0


class TestInputs:
    def test_raw_pixels_under_gradient_descent_but_not_under_adam(self):
        pixels = {"rms": 120.0, "mean": 80.0, "stdev": 89.0, "variation": 0.74}
        found = only(inputs(with_input(healthy(step=SGD), **pixels)))
        assert (found.id, found.layer, found.value, found.threshold) == ("input_scale", "0", 120.0, 12.0)
        assert found.confidence == 0.9
        assert "mean 80.0, standard deviation 89.0" in found.says
        assert only(inputs(with_input(healthy(step=ADAM), **pixels))).confidence < 0.5

    def test_a_first_normalization_takes_any_scale(self):
        assert inputs(with_input(healthy(step=SGD), rms=1e4, normalized=True)) == []

    @pytest.mark.parametrize(("rms", "confidence"), [(0.031, 0.0), (0.03, 0.4), (3e-3, 0.9)])
    def test_tiny_ones(self, rms, confidence):
        found = inputs(with_input(healthy(step=SGD), rms=rms))
        assert (found[0].confidence if found else 0.0) == pytest.approx(confidence)

    def test_far_from_zero(self):
        found = only(inputs(with_input(healthy(), rms=10.05, mean=10.0, stdev=1.0, variation=0.0331)))
        assert found.value == pytest.approx(10.0 / (10.05 * 0.0331))
        assert "its mean is 10.0" in found.says

    def test_one_feature_that_swamps_the_others(self):
        assert only(inputs(with_input(healthy(), steepest=1e4))).confidence == pytest.approx(0.72)
        assert inputs(with_input(healthy(), steepest=29.0)) == []

    def test_the_same_for_every_sample(self):
        assert only(inputs(with_input(healthy(), variation=0.0))).id == "constant_inputs"

    def test_not_finite(self):
        found = only(inputs(with_input(healthy(), rms=None)))
        assert found.confidence > 0.95
        assert "NaN" in found.says

    def test_indices_have_no_scale(self):
        assert inputs(with_input(healthy(), kind="index", rms=5e4)) == []


class TestTargets:
    def test_constant(self):
        found = only(targets(with_targets(healthy(), constant=True, largest_share=1.0)))
        assert found.value == 1.0
        assert "All 128 targets are the same" in found.says
        assert targets(with_targets(healthy(), constant=True, count=4)) == []

    def test_out_of_range(self):
        found = only(targets(with_targets(healthy(), kind="binary", low=-1.0, high=1.0)))
        assert found.value == -1.0
        assert "-1.00 to 1.00" in found.says
        assert targets(with_targets(healthy(), kind="binary", low=0.0, high=1.0)) == []
        assert only(targets(with_targets(healthy(), low=1.0, high=10.0))).threshold == 9.0

    @pytest.mark.parametrize(("closeness", "confidence"), [(0.5, 0.75), (0.7, 0.45), (0.8, 0.0)])
    def test_shuffled_where_neighbours_are_near(self, closeness, confidence):
        check = with_targets(healthy(), neighbours_z=0.3, neighbours_closeness=closeness, inputs_are_noise=False)
        assert only(targets(check)).confidence == confidence
        learns = replace(check, trains=True, problem=replace(check.problem, batches=2, batch_weights=(0.5, 0.5)))
        assert only(targets(learns)).confidence == confidence / 2
        assert targets(with_targets(check, neighbours_z=1.6)) == []
        assert targets(replace(check, problem=replace(check.problem, synthetic=True))) == []

    def test_none(self):
        assert targets(healthy(targets=TargetReading(kind="none", count=0, constant=True))) == []


class TestModes:
    @staticmethod
    def of(**changes) -> Check:
        reading = ModeReading(layer="1", kind="BatchNorm1d", training=True, tracked=0, mismatch=10.0, samples=128)
        return healthy(modes=(replace(reading, **changes),))

    def test_never_saw_data_and_in_eval(self):
        found = only(modes(self.of(training=False)))
        assert (found.id, found.layer, found.value) == ("normalization_untrained", "1", 10.0)
        assert found.confidence == 0.9
        assert modes(self.of(training=True)) == []
        assert modes(self.of(training=False, mismatch=1.4)) == []

    def test_statistics_of_other_data(self):
        assert only(modes(self.of(training=False, tracked=900, mismatch=30.0))).confidence == pytest.approx(0.9)
        assert modes(self.of(training=False, tracked=900, mismatch=4.9)) == []

    def test_statistics_of_two_values(self):
        found = only(modes(self.of(samples=2)))
        assert found.id == "mode"
        assert found.confidence > 0.7
        assert modes(self.of(samples=5)) == []

    def test_dropout_that_leaves_nothing(self):
        drop = {"kind": "Dropout", "tracked": None, "mismatch": None, "samples": None}
        found = only(modes(self.of(drop=0.95, **drop)))
        assert found.id == "dropout"
        assert found.confidence == pytest.approx(0.9)
        assert "95 %" in found.says
        assert found.says == "Layer 1 (Dropout) drops 95 % of its input: too little is left to learn from."
        assert modes(self.of(drop=0.7, **drop)) == []
        function = only(modes(self.of(drop=0.95, **drop | {"layer": "dropout", "kind": "function"})))
        assert (function.layer, function.says[:26]) == (None, "The function dropout drops")
        assert modes(self.of(drop=0.95, training=False, **drop)) == []


class TestUnits:
    def test_all_dead_by_their_biases(self):
        check = spoiled(healthy(), 1, dead_fraction=1.0, bias_mean=-8.0, output_rms=8.0, output_variation=0.1)
        check = spoiled(check, -1, input_variation=0.0)
        found = only(units(check))
        assert (found.id, found.layer, found.value) == ("dead_units", "2", 1.0)
        assert found.says == (
            "Layer 2 (Linear) is dead: all 32 units are zero for every sample, because its biases average -8.00 where "
            "its output varies by 0.800."
        )

    @pytest.mark.parametrize(("share", "confidence"), [(0.75, 0.0), (0.8, 0.4), (0.97, 0.9)])
    def test_a_large_share_counts(self, share, confidence):
        found = units(spoiled(healthy(), 1, dead_fraction=share))
        assert (found[0].confidence if found else 0.0) == pytest.approx(confidence)

    def test_a_dead_layer_with_a_way_around_it_is_no_cause(self):
        assert only(units(spoiled(healthy(), 1, dead_fraction=1.0))).confidence < 0.4

    def test_saturated(self):
        check = spoiled(healthy(), 1, activation="tanh", saturated_fraction=0.999, bias_rms=0.0)
        assert only(units(check)).confidence == pytest.approx(0.9)
        assert units(spoiled(healthy(), 1, activation="tanh", saturated_fraction=0.85)) == []
        assert units(spoiled(healthy(), 1, activation="softmax", saturated_fraction=1.0)) == []

    def test_copies_need_two_layers_in_a_row(self):
        one = spoiled(healthy(), 1, identical_fraction=31 / 32)
        assert units(one) == []
        found = only(units(spoiled(one, 2, identical_fraction=31 / 32)))
        assert found.says == (
            "In layer 2 (Linear) 31 of 32 units are copies of others (and 1 other layer likewise): units that are alike "
            "get the same gradient, and stay alike."
        )
        assert (found.id, found.layer) == ("identical_units", "2")

    def test_a_recurrent_layer_follows_itself(self):
        found = only(units(spoiled(healthy(), 1, kind="LSTM", identical_fraction=31 / 32)))
        assert found.layer == "2"
        assert found.confidence > 0.7

    def test_one_matrix_of_zeros_is_no_cause(self):
        assert units(spoiled(healthy(), -1, identical_fraction=0.9, weight_rms=0.0)) == []


class TestWeights:
    def test_one_layer_too_large_where_the_loss_suffers(self):
        check = with_output(spoiled(healthy(step=SGD), 1, weight_gain=141.4), loss=31.0, spread=20.0)
        found = only(weights(check))
        assert (found.id, found.layer, found.threshold) == ("weight_scale", "2", 8.0)
        assert found.value == pytest.approx(141.4 / sqrt(2))
        assert found.confidence > 0.7
        assert "100 times that of the other layers" in found.says

    def test_no_cause_where_nothing_suffers_or_a_normalization_follows(self):
        large = spoiled(healthy(), 1, weight_gain=141.4)
        assert only(weights(large)).confidence < 0.4
        assert weights(spoiled(large, 1, normalized=True)) == []
        assert weights(spoiled(healthy(), 1, weight_gain=1.414 * 7.9)) == []

    def test_all_too_large_where_the_signal_is_bounded(self):
        check = with_output(healthy(step=SGD), loss=46.0, spread=28.0)
        for place in range(5):
            check = spoiled(check, place, activation="tanh", weight_gain=30.0)
        found = only(weights(check))
        assert (found.id, found.layer) == ("weight_scale", None)
        assert found.value == pytest.approx(30.0 / (5 / 3))
        assert found.confidence == 0.9
        assert only(weights(with_output(check, loss=2.4, spread=0.5))).confidence < 0.4
        assert weights(spoiled(check, -1, input_rms=100.0)) == []  # it explodes

    def test_zeros_that_get_no_gradient(self):
        zeros = spoiled(healthy(), 1, weight_gain=0.0, weight_rms=0.0)
        assert weights(zeros) == []
        found = only(weights(spoiled(zeros, 1, gradient_zero_fraction=1.0)))
        assert (found.id, found.layer) == ("weight_scale", "2")
        assert "all 0" in found.says

    def test_one_layer_too_small_where_the_signal_ends(self):
        check = spoiled(healthy(), 1, weight_gain=1e-6, signal_variation=1e-6)
        for place in (2, 3, 4):
            check = spoiled(check, place, input_variation=1e-6)
        assert only(weights(check)).confidence == 0.9
        assert weights(spoiled(healthy(), 1, weight_gain=1e-6)) == []


def fading(rate: float, depth: int = 12, step=SGD) -> Check:
    """Variation between samples falls by a factor each layer."""
    layers = [
        layer(
            str(place), place + 1, weight_gain=0.577, input_variation=rate**place, signal_variation=rate ** (place + 1)
        )
        for place in range(depth)
    ]
    return healthy(step=step, layers=tuple(layers))


class TestSignal:
    def test_fades_with_depth(self):
        found = only(signal(fading(0.3)))
        assert (found.id, found.layer, found.threshold) == ("signal_lost", "2", 0.03)
        assert found.value == pytest.approx(0.3**11)
        assert found.confidence == 0.9
        assert found.says == (
            "The signal is lost: samples differ by only 1.77e-6 of the size of what enters the last layer (11); a layer "
            "leaves 30 % of the difference on average, which is gone after layer 2; the gain of the weights is 0.577, "
            "where relu needs 1.41."
        )

    def test_adam_takes_less(self):
        assert only(signal(fading(0.7, step=SGD))).confidence > 0.4
        assert signal(fading(0.7, step=ADAM)) == []

    def test_one_layer_takes_it(self):
        check = spoiled(spoiled(healthy(), 2, signal_variation=1e-6), -1, input_variation=1e-6)
        assert only(signal(check)).layer == "4"

    def test_by_size(self):
        check = healthy(12, SGD)
        check = spoiled(check, -1, input_rms=0.8e-3)
        found = only(signal(check))
        assert found.value == pytest.approx(1e-3)
        assert found.threshold == 0.02

    def test_a_small_signal_of_few_layers_counts_where_nothing_can_enlarge_it(self):
        check = spoiled(healthy(3, SGD), -1, input_rms=1e-9)
        assert lost(check) < 0.4
        for place in (0, 1):
            check = spoiled(check, place, gradient_rms=1e-12)
        assert lost(check) == 0.9

    def test_explodes_where_the_loss_suffers(self):
        check = spoiled(healthy(12, SGD), -1, input_rms=800.0)
        assert signal(check) == []
        found = only(signal(with_output(check, loss=200.0)))
        assert found.id == "signal_explodes"
        assert found.value == pytest.approx(1000.0)
        assert found.confidence == 0.9


class TestGradients:
    def test_no_graph(self):
        check = with_output(healthy(), gradient_rms=None)
        check = replace(check, layers=tuple(replace(one, reached=False) for one in check.layers))
        found = only(gradients(check))
        assert found.id == "detached"
        assert found.layer is None

    def test_detached_in_the_middle(self):
        check = spoiled(spoiled(healthy(), 0, reached=False), 1, reached=False)
        found = only(gradients(check))
        assert (found.id, found.layer, found.value) == ("detached", "2", pytest.approx(0.4))
        assert found.confidence > 0.7

    def test_an_unused_layer_is_none(self):
        assert gradients(spoiled(healthy(), 1, reached=False, calls=0, depth=None)) == []

    def test_exact_zeros(self):
        check = healthy()
        for place in range(3):
            check = spoiled(check, place, gradient_zero_fraction=1.0)
        found = only(gradients(check))
        assert (found.id, found.layer) == ("gradient_vanishes", "4")
        assert found.confidence > 0.7

    def test_a_matrix_of_zeros_holds_them_back_for_one_step_only(self):
        check = healthy()
        for place in range(3):
            check = spoiled(check, place, gradient_zero_fraction=1.0)
        assert gradients(spoiled(check, 3, weight_rms=0.0)) == []
        assert gradients(spoiled(check, 0, gradient_zero_fraction=0.5)) == []  # the first one learns

    def test_fade_and_grow(self):
        fades = only(gradients(spoiled(healthy(step=SGD), 0, output_gradient_rms=2e-6)))
        assert fades.id == "gradient_vanishes"
        assert fades.value == pytest.approx(1e-5)
        assert fades.confidence == 0.9
        grows = only(gradients(spoiled(healthy(), 0, output_gradient_rms=2e6)))
        assert grows.id == "gradient_explodes"
        assert grows.confidence == 0.9

    def test_frozen_and_fresh(self):
        check = healthy()
        for place in range(4):
            check = spoiled(check, place, trainable=False, reached=False, weight_gain=1 / sqrt(3))
        assert only(gradients(check)).id == "detached"
        assert gradients(spoiled(check, 0, weight_gain=0.9)) == []


class TestOutput:
    def test_softmax_before_cross_entropy(self):
        found = only(output(with_output(healthy(), probabilities="softmax", last="softmax", high=0.3)))
        assert found.id == "outputs_are_probabilities"
        assert found.confidence >= 0.9
        assert "can only fall to 1.46" in found.says
        assert output(with_output(healthy(), probabilities="log_softmax")) == []
        other = healthy(problem=ModelSubject(loss="mse", loss_kind="mse"))
        assert output(with_output(other, probabilities="softmax")) == []

    def test_loss_far_above_chance(self):
        found = output(with_output(healthy(step=SGD), loss=2.303 * 15))
        assert only(found).value == pytest.approx(15.0)
        assert only(found).confidence == pytest.approx(0.81)
        assert output(with_output(healthy(step=SGD), loss=2.303 * 3.9)) == []

    def test_targets_far_from_the_output(self):
        real = TargetReading(kind="real", count=128, mean=1000.0, stdev=1.0, low=990.0, high=1010.0)
        check = healthy(targets=real, problem=ModelSubject(loss="mse", loss_kind="mse"))
        found = only(output(check))
        assert found.id == "loss_at_start"
        assert found.confidence == 0.9
        assert "mean 1,000" in found.says
        assert output(replace(check, targets=replace(real, mean=2.0))) == []

    @pytest.mark.parametrize(("last", "low", "id_"), [("tanh", -3.0, "output_range"), ("relu", -0.4, None)])
    def test_targets_that_the_last_function_does_not_reach(self, last, low, id_):
        real = TargetReading(kind="real", count=128, mean=0.0, stdev=1.0, low=low, high=0.9)
        check = healthy(targets=real, problem=ModelSubject(loss="mse", loss_kind="mse"))
        found = output(with_output(check, last=last))
        assert [one.id for one in found] == ([id_] if id_ else [])
        assert output(check) == []

    def test_large_logits(self):
        found = only(output(with_output(healthy(step=SGD), spread=25.0)))
        assert found.id == "logit_scale"
        assert found.confidence == pytest.approx(0.9)
        assert output(with_output(healthy(step=SGD), spread=25.0, loss=0.5)) == []

    def test_ignored_and_broadcast(self):
        assert only(output(with_output(healthy(), depends_on_output=False))).id == "loss_ignores_output"
        assert only(output(with_output(healthy(), broadcast=True))).id == "output_broadcast"


class TestNumbers:
    def test_overflow_is_placed(self):
        found = only(
            numbers(with_output(healthy(step=SGD, numbers=RangeReading(dtype="float16", not_finite="4")), loss=None))
        )
        assert found.layer == "4"
        assert found.confidence > 0.9
        assert "float16" in found.says

    def test_an_epsilon_that_is_0_in_float16(self):
        half = healthy(numbers=RangeReading(dtype="float16", zero_share=0.0))
        assert only(numbers(half)).value == 1e-8
        assert numbers(replace(half, trains=True)) == []
        assert numbers(replace(half, step=replace(ADAM, settings={"eps": 3e-8}))) == []

    def test_underflow(self):
        found = only(numbers(healthy(step=SGD, numbers=RangeReading(dtype="float16", zero_share=0.6))))
        assert found.value == 0.6
        assert found.confidence > 0.7
        assert numbers(healthy(step=SGD, numbers=RangeReading(dtype="float16", zero_share=0.04))) == []
