"""Weights load as torch loads them: hooks first, then names; one state dict that fits, and what was done is said."""

import contextlib
import json
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from hessdiag.cli import main
from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.problem.files import weights
from hessdiag.problem.files.checkpoint import read
from hessdiag.problem.load import ProblemRequest, load_problem


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trained(seed=1):
    """A network after one step, and its optimizer."""
    model = net(seed)
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def prefixed(state, prefix):
    """As a module saves that holds the model under this name: names and versions."""
    result = OrderedDict((prefix + name, value) for name, value in state.items())
    result._metadata = {
        (prefix + name if name else prefix[:-1]): value for name, value in getattr(state, "_metadata", {}).items()
    }
    return result


def saved(content, path):
    torch.save(content, path)
    return read(path)


class TestHooks:
    @pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
    @pytest.mark.parametrize("bias", [True, False])
    def test_old_weight_norm(self, prefix, bias, tmp_path):
        """Without a bias no name of the file is one of the model's before its hooks ran."""
        torch.manual_seed(1)
        old = nn.Sequential(*(nn.utils.weight_norm(nn.Linear(4, 4, bias=bias)) for _ in range(2)))
        new = nn.Sequential(*(parametrizations.weight_norm(nn.Linear(4, 4, bias=bias)) for _ in range(2)))
        content = saved({"model": prefixed(old.state_dict(), prefix)}, tmp_path / "c.pt")
        notes = weights.load_content(new, content, "c.pt").notes
        x = torch.randn(5, 4)
        assert torch.equal(new(x), old(x))
        assert any("renamed by the model's own loading hooks" in note for note in notes)

    def test_a_hook_of_the_users(self):
        class Renamed(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 2)
                self.register_load_state_dict_pre_hook(self.rename)

            def rename(self, module, state, prefix, *rest):
                for name in [name for name in state if name.startswith(f"{prefix}dense.")]:
                    state[name.replace("dense.", "fc.")] = state.pop(name)

        source, model = nn.Linear(3, 2), Renamed()
        state = prefixed(source.state_dict(), "dense.")
        weights.load_content(model, {"net_g": state}, "c.pt")
        assert torch.equal(model.fc.weight, source.weight)
        assert list(state) == ["dense.weight", "dense.bias"]

    @pytest.mark.parametrize(("version", "factor"), [(None, 1000.0), (1, 1000.0), (2, 1.0)])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_older_versions_are_converted(self, version, factor, prefix, tmp_path):
        class Scaled(nn.Module):
            _version = 2

            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(3))

            def _load_from_state_dict(self, state, prefix, versions, *rest):
                if (versions.get("version") or 1) < 2:
                    state[f"{prefix}scale"] = 1000 * state.pop(f"{prefix}milliscale")
                super()._load_from_state_dict(state, prefix, versions, *rest)

        model = nn.Sequential(nn.Linear(2, 3), Scaled())
        state = model.state_dict()
        state["1.scale" if version == 2 else "1.milliscale"] = 0 * state.pop("1.scale") + 2.0
        if version is None:
            del state._metadata
        else:
            state._metadata["1"]["version"] = version
        content = saved({"state_dict": prefixed(state, prefix)}, tmp_path / "c.pt")
        weights.load_content(model, content, "c.pt")
        assert torch.equal(model[1].scale.detach(), torch.full((3,), 2.0 * factor))

    def test_missing_names_that_the_model_forgives(self):
        class Forgiving(nn.Linear):
            def __init__(self):
                super().__init__(3, 2)
                self.register_load_state_dict_post_hook(lambda _, keys: keys.missing_keys.clear())

        model, source = Forgiving(), nn.Linear(3, 2)
        weights.load_content(model, {"weight": source.weight.detach()}, "c.pt")
        assert torch.equal(model.weight, source.weight)

    def test_extra_state(self):
        class Counting(nn.Linear):
            seen = 0

            def get_extra_state(self):
                return {"seen": self.seen}

            def set_extra_state(self, state):
                self.seen = state["seen"]

        source, model = Counting(3, 2), Counting(3, 2)
        source.seen = 7
        weights.load_content(model, {"model": source.state_dict()}, "c.pt")
        assert model.seen == 7

    def test_a_hook_that_fails(self):
        class Failing(nn.Linear):
            def _load_from_state_dict(self, *_):
                raise KeyError("no such layer")

        with pytest.raises(LoadError, match="KeyError: 'no such layer'") as caught:
            weights.load_content(Failing(3, 2), nn.Linear(3, 2).state_dict(), "c.pt")
        assert "\n" not in caught.value.what

    def test_nothing_is_copied_before_it_is_known_to_fit(self):
        model = net()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        contents = [
            {"model": net(1).state_dict() | {"more": torch.ones(1)}},
            {"a": net(1).state_dict(), "b": net(2).state_dict()},
        ]
        for content in contents:
            with pytest.raises((LoadError, SpecError)):
                weights.load_content(model, content, "c.pt")
            assert same(model.state_dict(), before)


MODEL_KEYS = ["model_state", "net_g", "generator", "network", "module", "student", "backbone", "state_dict", "mine"]
OPTIMIZER_KEYS = ["optimizer_state", "optim_g", "opt", "optimizer", "o", "model_optimizer"]


class TestChoice:
    @pytest.mark.parametrize("key", MODEL_KEYS)
    @pytest.mark.parametrize("optimizer_key", OPTIMIZER_KEYS)
    def test_states_of_optimizers_are_no_models(self, key, optimizer_key, tmp_path):
        source, optimizer = trained()
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        others = {
            "lr_scheduler": scheduler.state_dict(),
            "scaler": {"scale": torch.tensor(65536.0), "_growth_tracker": torch.tensor(0)},
            "callbacks": {"best": {"score": torch.tensor(0.5)}},
            "amp": {"loss_scaler0": {"loss_scale": torch.tensor(2.0), "unskipped": 3}},
        }
        content = {optimizer_key: optimizer.state_dict(), "step": 7, key: source.state_dict(), **others}
        model = net()
        notes = weights.load_content(model, saved(content, tmp_path / "c.pt"), "c.pt").notes
        assert same(model.state_dict(), source.state_dict())
        assert notes == (f"weights: found under {key!r} in c.pt",)

    def test_an_optimizer_with_names_of_parameters(self):
        """As FSDP and DCP write it: every slot is a mapping with the model's own names in it."""
        source, optimizer = trained()
        names = dict(enumerate(dict(source.named_parameters())))
        slots = {names[index]: slot for index, slot in optimizer.state_dict()["state"].items()}
        content = {"model": source.state_dict(), "optim": {"state": slots, "param_groups": []}}
        model = net()
        weights.load_content(model, content, "c.pt")
        assert same(model.state_dict(), source.state_dict())

    def test_an_optimizer_alone(self):
        _, optimizer = trained()
        with pytest.raises(LoadError, match="holds no state_dict"):
            weights.load_content(net(), {"model": optimizer.state_dict()}, "c.pt")

    @pytest.mark.parametrize(
        "average",
        [
            {"decay": 0.999, "num_updates": 5, "shadow_params": [torch.ones(2)], "collected_params": None},
            {"decay": 0.999, "num_updates": 5, "averages": net(3).state_dict()},
            {"shadow": net(3).state_dict()},
        ],
    )
    def test_the_shadow_of_an_average_is_not_the_model(self, average):
        source, model = net(1), net()
        weights.load_content(model, {"model": source.state_dict(), "ema": average}, "c.pt")
        assert same(model.state_dict(), source.state_dict())

    def test_a_shadow_can_be_asked_for(self):
        content = {"model": net(1).state_dict(), "ema": {"shadow": net(3).state_dict()}}
        model = net()
        weights.load_content(model, weights.pick(content, "ema.shadow", "c.pt"), "c.pt#ema.shadow")
        assert same(model.state_dict(), net(3).state_dict())

    def test_the_one_that_fits(self):
        """A generator beside a discriminator: names and shapes say which is meant."""
        other = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        source, model = net(1), net()
        weights.load_content(model, {"net_d": other.state_dict(), "net_g": source.state_dict()}, "c.pt")
        assert same(model.state_dict(), source.state_dict())
        weights.load_content(other, {"net_d": other.state_dict(), "net_g": source.state_dict()}, "c.pt")

    def test_several_that_fit_must_be_named(self):
        content = {
            "model": net(1).state_dict(),
            "model_ema": {"module": net(2).state_dict()},
            "best": net(3).state_dict(),
        }
        with pytest.raises(SpecError) as caught:
            weights.load_content(net(), content, "c.pt")
        assert caught.value.hint == "c.pt#model or c.pt#model_ema.module or c.pt#best"

    def test_two_networks_in_one_mapping(self):
        state = prefixed(net(1).state_dict(), "student.") | prefixed(net(2).state_dict(), "teacher.")
        content = {"state_dict": state, "epoch": 3}
        with pytest.raises(SpecError) as caught:
            weights.load_content(net(), content, "c.pt")
        assert caught.value.hint == "c.pt#state_dict.student or c.pt#state_dict.teacher"
        for seed, name in ((1, "student"), (2, "teacher")):
            model = net()
            weights.load_content(model, weights.pick(content, f"state_dict.{name}", "c.pt"), "c.pt")
            assert same(model.state_dict(), net(seed).state_dict())

    def test_equal_copies_are_no_choice(self):
        state = net(1).state_dict()
        content = {"model": state, "best": {name: value.clone() for name, value in state.items()}}
        model = net()
        assert weights.load_content(model, content, "c.pt").notes == ("weights: found under 'model' in c.pt",)
        assert same(model.state_dict(), state)

    def test_a_copy_inside_of_the_model_is_not_taken_for_it(self):
        state = net(1).state_dict() | prefixed(net(2).state_dict(), "ema.")
        with pytest.raises(LoadError, match=r"unexpected: ema\.0\.weight") as caught:
            weights.load_content(net(), state, "c.pt")
        assert caught.value.hint == "c.pt#ema, which fits"

    @pytest.mark.parametrize(
        ("wrap", "said"),
        [
            (
                lambda s: {"state_dict": prefixed(s, "model.") | {"criterion.weight": torch.ones(2)}},
                "weights: criterion.weight outside of 'model.', left out",
            ),
            (
                lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(3)},
                "weights: n_averaged outside of 'module.', left out",
            ),
            (lambda s: prefixed(s, "my_wrapper."), "weights: prefix 'my_wrapper.' stripped"),
            (
                lambda s: {name.replace(".", "._orig_mod.", 1): value for name, value in s.items()},
                "weights: '_orig_mod.' taken out of names",
            ),
            (
                lambda s: {f"module.{name.replace('.', '._fsdp_wrapped_module.', 1)}": v for name, v in s.items()},
                "weights: '_fsdp_wrapped_module.' taken out of names",
            ),
            (lambda s: s | {"epoch": 3, "note": "best"}, "weights: epoch, note in c.pt no tensors, left out"),
            (lambda s: s | {"optimizer": {"state": {}, "param_groups": []}}, None),
            (lambda s: {name: value.numpy() for name, value in s.items()}, None),
            (lambda s: {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in s.items()}, None),
        ],
    )
    def test_what_wrappers_do_to_names(self, wrap, said, tmp_path):
        state, model = net(1).state_dict(), net()
        notes = weights.load_content(model, saved(wrap(dict(state)), tmp_path / "c.pt"), "c.pt").notes
        assert same(model.state_dict(), state)
        assert said in notes if said else not notes

    def test_real_wrappers_of_torch(self):
        source = net(1)
        average = torch.optim.swa_utils.AveragedModel(source)
        average.update_parameters(source)
        model = net()
        weights.load_content(model, {"ema": average.state_dict()}, "c.pt")
        assert same(model.state_dict(), source.state_dict())
        model = net()
        weights.load_content(model, {"net": nn.DataParallel(torch.compile(source)).state_dict()}, "c.pt")
        assert same(model.state_dict(), source.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestTorchScript:
    def test_weights(self):
        source, model = net(1), torch.jit.script(net())
        weights.load_content(model, {"model": prefixed(source.state_dict(), "module.")}, "c.pt")
        assert same(model.state_dict(), source.state_dict())
        with pytest.raises(LoadError, match=r"1 missing: 0\.bias; 1 of another shape: 0\.weight"):
            weights.load_content(model, {"0.weight": torch.ones(2, 2)} | without(source.state_dict(), "0."), "c.pt")

    def test_a_model_whose_own_loading_fails(self):
        class Own(nn.Linear):
            def load_state_dict(self, state, strict=True):
                raise ValueError("not like this")

        with pytest.raises(LoadError, match="not like this"):
            weights.load_content(Own(3, 2), nn.Linear(3, 2).state_dict(), "c.pt")

    def test_a_model_that_loads_by_itself(self):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Linear(3, 2)

            def state_dict(self, **options):
                return self.inner.state_dict(**options)

            def load_state_dict(self, state, strict=True):
                return self.inner.load_state_dict(state, strict)

        source, model = nn.Linear(3, 2), Own()
        weights.load_content(model, {"model": source.state_dict()}, "c.pt")
        assert torch.equal(model.inner.weight, source.weight)


def without(state, prefix):
    return {name: value for name, value in state.items() if not name.startswith(prefix)}


class TestStrict:
    def test_close_names_are_said(self):
        state = net(1).state_dict()
        state["0.wieght"] = state.pop("0.weight")
        with pytest.raises(LoadError) as caught:
            weights.load_content(net(), state, "c.pt")
        assert "1 missing: 0.weight (the file has 0.wieght); 1 unexpected: 0.wieght" in caught.value.what
        assert "--no-strict" in caught.value.hint

    def test_what_does_not_fit_is_left_out_and_said(self):
        source, model = net(1), net()
        state = source.state_dict()
        del state["1.bias"]
        state |= {"head.weight": torch.ones(2), "2.weight": torch.ones(7, 4)}
        kept = model[1].bias.detach().clone(), model[2].weight.detach().clone()
        loaded = weights.load_content(model, {"model": state}, "c.pt", strict=False)
        assert loaded.left_out == {
            "missing": ("1.bias",),
            "unexpected": ("head.weight",),
            "mismatched": ["2.weight"],
        }
        assert torch.equal(model[0].weight, source[0].weight)
        assert torch.equal(model[2].bias, source[2].bias)
        assert torch.equal(model[1].bias, kept[0])
        assert torch.equal(model[2].weight, kept[1])
        assert loaded.notes[-1] == (
            "weights: --no-strict left out 1 missing: 1.bias; 1 unexpected: head.weight; 1 of another shape: 2.weight "
            "(7, 4) in the file, (2, 4) in the model; 6 of the model's 8 entries were loaded"
        )

    def test_nothing_matches(self):
        for state in ({"a": torch.ones(2)}, {"0.weight": torch.ones(9, 9)}, {"x": {"y": torch.ones(1)}}):
            with pytest.raises(LoadError, match="does not fit the model"):
                weights.load_content(net(), state, "c.pt", strict=False)

    def test_several_that_fit_in_part_must_be_named(self):
        def part(seed):
            return {name: value for name, value in net(seed).state_dict().items() if not name.startswith("2")}

        with pytest.raises(SpecError, match=r"c\.pt#model or c\.pt#best"):
            weights.load_content(net(), {"model": part(1), "best": part(2)}, "c.pt", strict=False)
        model = net()
        weights.load_content(model, {"model": part(1), "other": {"0.weight": torch.ones(4, 3)}}, "c.pt", strict=False)
        assert torch.equal(model[0].weight, net(1)[0].weight)

    def test_on_the_command_line(self, folder, capfd):
        (folder / "m.py").write_text(
            "from torch import nn\ndef f(): return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))\n"
        )
        torch.manual_seed(3)
        source = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))
        torch.save(source.state_dict(), "c.pt")
        command = ["diag-share", "m.py:f", "--weights", "c.pt", "--json"]
        assert main.run(command) == 3
        capfd.readouterr()
        assert main.run([*command, "--no-strict"]) == 0
        document = json.loads(capfd.readouterr().out)
        assert document["problem"]["weights_left_out"]["mismatched"] == ["2.weight", "2.bias"]
        assert any("--no-strict left out 2 of another shape" in note for note in document["problem"]["notes"])
        problem = load_problem(ProblemRequest("m.py:f", weights="c.pt", strict=False))
        assert torch.equal(problem.model[0].weight, source[0].weight)
        assert load_problem(ProblemRequest("m.py:f")).source["weights_left_out"] == {}


class TestOddTensors:
    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (torch.ones(4, 3, device="meta"), "no values"),
            (torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8), "is quantized"),
            (torch.ones(4, 3, dtype=torch.complex64), "complex"),
            (torch.tensor(1.0), r"0\.weight \(\) in the file"),
            (torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]), "does not fit"),
        ],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_what_torch_would_take_in_silence_or_not_at_all(self, value, said):
        with pytest.raises(LoadError, match=said) as caught:
            weights.load_content(net(), {"model": net(1).state_dict() | {"0.weight": value}}, "c.pt")
        assert "\n" not in caught.value.what

    @pytest.mark.filterwarnings("ignore")
    def test_sparse_tensors_become_dense(self, tmp_path):
        state, model = net(1).state_dict(), net()
        content = saved({"model": state | {"0.weight": state["0.weight"].to_sparse()}}, tmp_path / "c.pt")
        weights.load_content(model, content, "c.pt")
        assert same(model.state_dict(), state)

    def test_quantized_tensors_elsewhere_do_not_matter(self):
        quantized = {"0.weight": torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8)}
        model = net()
        weights.load_content(model, {"model": net(1).state_dict(), "int8": quantized}, "c.pt")
        assert same(model.state_dict(), net(1).state_dict())

    @pytest.mark.parametrize(
        "content",
        [
            {0: torch.ones(1), 1: torch.ones(2)},
            [torch.ones(1)],
            {"a": {1: {(2, 3): torch.ones(1)}}},
            {"model": []},
            {},
            torch.ones(3),
        ],
    )
    def test_no_names(self, content):
        with pytest.raises(LoadError) as caught:
            weights.load_content(net(), content, "c.pt")
        assert "\n" not in caught.value.what

    def test_deep_wide_and_circular(self):
        deep = {"w": torch.ones(1)}
        for _ in range(2000):
            deep = {"a": deep}
        circular = {"model": net(1).state_dict(), "wide": {f"k{i}": {"w": torch.ones(1)} for i in range(3000)}}
        circular |= {"deep": deep, "me": circular, "again": {f"k{i}": circular for i in range(200)}}
        model = net()
        weights.load_content(model, circular, "c.pt")
        assert same(model.state_dict(), net(1).state_dict())

    def test_a_mapping_whose_methods_a_file_hid(self):
        state = net(1).state_dict()
        vars(state).update(items=nn.Linear, keys=3, values=None, _metadata={"0": 3, 4: {}, "1": {"version": "two"}})
        model = net()
        weights.load_content(model, {"model": state}, "c.pt")
        assert torch.equal(model[0].weight, dict.__getitem__(state, "0.weight"))


class TestDistributed:
    @pytest.fixture
    def two_processes(self):
        from torch.testing._internal.distributed.fake_pg import FakeStore

        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
        yield
        torch.distributed.destroy_process_group()

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("spread", [True, False])
    def test_dtensors(self, two_processes, spread, tmp_path):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor, Replicate, Shard

        mesh, state = init_device_mesh("cpu", (2,)), net(1).state_dict()
        place = Shard(0) if spread else Replicate()
        content = {
            "model": {name: DTensor.from_local(value, mesh, [place]) for name, value in state.items() if value.ndim}
        }
        torch.save(content, tmp_path / "c.pt")
        torch.distributed.destroy_process_group()
        try:
            model = net()
            if spread:
                twice = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(4, 4))
                with pytest.raises(
                    LoadError, match=r"0\.weight in c\.pt is a DTensor: one process's \(4, 3\) of \(8, 3\)"
                ):
                    weights.load_content(twice, read(tmp_path / "c.pt"), "c.pt", strict=False)
            else:
                weights.load_content(model, read(tmp_path / "c.pt"), "c.pt")
                assert torch.equal(model[0].weight, state["0.weight"])
        finally:
            from torch.testing._internal.distributed.fake_pg import FakeStore

            torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)


@pytest.mark.parametrize("kind", ["weight_norm_old_keys", "model_state", "net_g", "numpy_metadata"])
def test_files_as_trainers_write_them(kind, folder):
    (folder / "m.py").write_text(
        "from torch import nn\n"
        "def plain(): return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))\n"
        "def normed():\n"
        "    last = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))\n"
        "    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), last)\n"
    )
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    if kind == "weight_norm_old_keys":
        model[2] = nn.utils.weight_norm(model[2])
    state = model.state_dict()
    torch.save(
        {
            "weight_norm_old_keys": state,
            "model_state": {"step": 7, "model_state": state, "optimizer_state": optimizer.state_dict()},
            "net_g": {"net_g": state, "optim_g": optimizer.state_dict()},
            "numpy_metadata": {"model": state, "best": np.float64(0.91), "history": np.arange(3.0)},
        }[kind],
        "c.pt",
    )
    spec = "m.py:normed" if kind == "weight_norm_old_keys" else "m.py:plain"
    problem = load_problem(ProblemRequest(spec, weights="c.pt", device="cpu"))
    x = torch.randn(6, 4)
    assert torch.equal(problem.model(x), model(x))
    assert main.run(["diag-share", spec, "--weights", "c.pt", "--json"]) == 0


def test_names_stay_on_one_line_of_the_terminal():
    names = ["a\nb", "\x1b[2J", "x" * 5000, ""]
    state = net(1).state_dict() | {name: torch.ones(1) for name in names}
    with pytest.raises(LoadError) as caught:
        weights.load_content(net(), {"mo\ndel": state}, "c.pt")
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 700


LEAVES = (
    lambda: torch.ones(4, 3).to_sparse_csr(),
    lambda: torch.ones(4, 3, device="meta"),
    lambda: nn.UninitializedParameter(),
    lambda: torch.ones(4, 3, dtype=torch.int8),
    lambda: np.array(["a"]),
    lambda: np.ones((4, 3), dtype=">f8"),
    lambda: {"a": torch.ones(1)},
    lambda: None,
    lambda: net(),
    lambda: torch._neg_view(torch.ones(4, 3)),
)
NAMES = ("x", "0", ".", "0.", "0.weight", "1.bias", "0._extra_state", "", "a." * 500 + "w", 3, None, (1, 2), b"q")
WRAPS = (
    lambda c: {"model": c},
    lambda c: {"a.b": c, "": c},
    lambda c: {"ema": {"decay": 0.9, "s": c}},
    lambda c: {1: c, "optimizer": {"state": {}, "param_groups": []}},
    lambda c: [c],
    lambda c: {f"module.{name}": value for name, value in c.items()} if isinstance(c, dict) else c,
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(150))
def test_odd_contents_load_or_end_in_an_error_of_ours(seed):
    chosen = random.Random(seed)
    content = net(1).state_dict()
    for _ in range(chosen.randrange(3)):
        content[chosen.choice(NAMES)] = chosen.choice(LEAVES)()
    content._metadata = chosen.choice([None, 3, {}, {"1": {"version": "x"}}, {"1": None}, {1: {"version": 2}}])
    for _ in range(chosen.randrange(3)):
        content = chosen.choice(WRAPS)(content)
    model = net()
    with contextlib.suppress(HessdiagError):  # its being one line is tested above
        weights.load_content(model, content, "c.pt", strict=chosen.random() < 0.5)
    assert all(value.layout is torch.strided and not value.is_meta for value in model.state_dict().values())
