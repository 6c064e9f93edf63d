"""Folders of pictures: classes, order, size, scale and kinds of files; and what is refused."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.errors import HessdiagError, LoadError, SpecError
from hessdiag.problem.batches import decoding, pictures
from hessdiag.problem.batches.decoding import Preparation, decoded
from hessdiag.problem.files.allowance import Allowance
from hessdiag.problem.load import ALL, ProblemRequest, load_problem

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)
GREY = "builtin:mlp(depth=1, in_features=16, out_features=3)"
CONV = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def load(data, model=GREY, **options):
    return load_problem(ProblemRequest(model, data=str(data), device="cpu", **options))


def pixels(*shape):
    return RNG.integers(256, size=shape, dtype=np.uint8)


def saved(path, array=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(4, 4) if array is None else array).save(path, **options)
    return path


@pytest.fixture
def zoo(folder):
    """Three classes of 4x4 grey pictures, 14 in all, and the pixels of each by name."""
    for name, count in (("dog", 6), ("cat", 5), ("ant", 3)):
        for k in range(count):
            saved(folder / "zoo" / name / f"{k}.png")
    torch.save(CONV, folder / "conv.pt")
    return folder / "zoo"


def truth(zoo):
    """Class by pixels, as torchvision's ImageFolder numbers classes."""
    names = sorted(entry.name for entry in os.scandir(zoo))
    return {np.asarray(Image.open(file)).tobytes(): names.index(file.parent.name) for file in zoo.rglob("*.png")}


class TestClasses:
    def test_folders_in_order_of_their_names(self, zoo):
        problem = load(f"{zoo}/")
        ((x, y),) = problem.data
        assert x.shape == (14, 16)
        assert problem.loss == "ce"
        expected = truth(zoo)
        assert [expected[(row * 255).round().byte().numpy().tobytes()] for row in x] == y.tolist()
        assert "data: 3 classes in the order of their names: 0 ant, 1 cat, 2 dog" in problem.notes
        assert "data: 14 pictures, read as 1x4x4" in problem.notes
        assert "data: each image was flattened to 16 inputs" in problem.notes

    def test_a_seed_draws_the_order_and_shuffle_false_keeps_it(self, zoo):
        first, again, other = (load(zoo, batch_size=5, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.data[0][0], again.data[0][0])
        assert not torch.equal(first.data[0][0], other.data[0][0])
        filed = load(f"{zoo}(shuffle=False)", batches=ALL, batch_size=5)
        assert torch.cat([y for _, y in filed.data]).tolist() == [0] * 3 + [1] * 5 + [2] * 6
        assert "data: pictures in an order as filed" in filed.notes

    def test_only_what_is_used_is_opened(self, zoo, monkeypatch):
        opened = []
        plain = pictures.decoded
        monkeypatch.setattr(pictures, "decoded", lambda file, *rest: opened.append(file) or plain(file, *rest))
        load(f"{zoo}(size=4)", batch_size=3)
        assert len(opened) == 3

    def test_hidden_ones_other_files_links_and_empty_classes(self, zoo):
        saved(zoo / ".git" / "x.png")
        saved(zoo / "dog" / ".hidden.png")
        saved(zoo / "loose.png")
        (zoo / "dog" / "notes.txt").write_text("no picture")
        (zoo / "bee").mkdir()
        (zoo / "cat" / "round").symlink_to(zoo / "cat", target_is_directory=True)
        (zoo / "cat" / "gone.png").symlink_to(zoo / "nothing.png")
        (zoo / "ant" / "again.png").symlink_to(zoo / "ant" / "0.png")
        os.mkfifo(zoo / "dog" / "pipe.png")
        problem = load(zoo, model="builtin:mlp(depth=1, in_features=16, out_features=4)", batches=ALL)
        (y,) = (y for _, y in problem.data)
        assert torch.bincount(y).tolist() == [4, 0, 5, 6]
        assert "data: classes without pictures keep their numbers: bee" in problem.notes
        assert "data: 1 pictures beside the folders of classes are left out" in problem.notes

    @pytest.mark.parametrize("names", ["labels.csv", "metadata.csv"])
    def test_a_table_of_labels(self, names, folder):
        for k in range(4):
            saved(folder / "flat" / f"{k}.png", np.full((4, 4), k, dtype=np.uint8))
        (folder / "flat" / names).write_text(
            "file_name,label\n" + "".join(f"{k}.png,{'ab'[k % 2]}\n" for k in range(4))
        )
        problem = load(folder / "flat", batches=ALL)
        ((x, y),) = problem.data
        assert ((x[:, 0] * 255).round().long() % 2 == y).all()
        assert problem.source["files"][-1]["path"].endswith(names)
        (folder / "flat" / names).write_text("".join(f"{k / 2},{k}.png\n" for k in range(4)))
        assert load(folder / "flat", "builtin:mlp(depth=1, in_features=16, out_features=1)").loss == "mse"

    @pytest.mark.parametrize("line", ["../out.png,a", "gone.png,a", "0.png", "/etc/hosts,a", "\x1b[31m.png,b"])
    def test_a_table_that_does_not_fit(self, line, folder):
        saved(folder / "flat" / "0.png")
        saved(folder / "out.png")
        (folder / "flat" / "labels.csv").write_text(f"0.png,a\n0.png,b\n{line}\n0.png,b\n")
        with pytest.raises(LoadError, match=r"line 3") as caught:
            load(folder / "flat")
        assert caught.value.what.isprintable()

    def test_without_labels(self, folder):
        saved(folder / "flat" / "0.png")
        with pytest.raises(LoadError, match="without labels") as caught:
            load(folder / "flat")
        assert "#images,images" in caught.value.hint
        problem = load(folder / "flat#images,images", "builtin:mlp(depth=1, width=16)", loss="mse")
        ((x, y),) = problem.data
        assert torch.equal(x, y)
        (folder / "o.py").write_text("def f(model, batch): return model(batch.flatten(1).to(model.weight)).square().mean()\n"
                                     "import torch\ndef m(): return torch.nn.Linear(16, 2)\n")  # fmt: skip
        free = load(folder / "flat#images", "o.py:m", objective="o.py:f")
        assert free.data[0].shape == (1, 16)

    def test_splits_are_no_classes(self, zoo):
        (zoo.parent / "data" / "val").mkdir(parents=True)
        zoo.rename(zoo.parent / "data" / "train")
        with pytest.raises(LoadError, match="splits of the data") as caught:
            load(zoo.parent / "data")
        assert caught.value.hint == f"--data {zoo.parent / 'data' / 'train'}/"
        assert load(zoo.parent / "data" / "train").n_samples == 14

    def test_no_pictures(self, folder):
        (folder / "d" / "a").mkdir(parents=True)
        (folder / "d" / "a" / "x.txt").write_text("x")
        with pytest.raises(LoadError, match=r"holds no pictures.*1 \.txt"):
            load(folder / "d")


class TestKinds:
    def read(self, path, channels=3, **options):
        return decoded(path, Preparation(channels, **options), Allowance.of(path))

    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "gif"])
    def test_formats_that_lose_nothing(self, suffix, tmp_path):
        colours = np.repeat(pixels(5, 7, 1), 3, axis=2)
        path = saved(tmp_path / f"a.{suffix}", colours, **({"lossless": True} if suffix == "webp" else {}))
        expected = torch.from_numpy(colours).double().permute(2, 0, 1) / 255
        assert torch.equal(self.read(path).values, expected)
        assert torch.equal(self.read(path.rename(tmp_path / "other.jpg")).values, expected)  # by content

    def test_jpeg(self, tmp_path):
        path = saved(tmp_path / "a.jpg", pixels(8, 9, 3))
        expected = np.asarray(Image.open(path)).transpose(2, 0, 1) / 255
        assert np.array_equal(self.read(path).values.numpy(), expected)

    def test_grey_colours_and_transparency(self, tmp_path):
        grey, colours = pixels(4, 5), pixels(4, 5, 4)
        g, c = saved(tmp_path / "g.png", grey), saved(tmp_path / "c.png", colours)
        assert torch.equal(self.read(g, 1).values[0], torch.from_numpy(grey).double() / 255)
        assert torch.equal(self.read(g).values, self.read(g, 1).values.expand(3, 4, 5))
        assert np.array_equal(self.read(c).values.numpy(), colours[..., :3].transpose(2, 0, 1) / 255)
        assert np.array_equal(self.read(c, 4).values.numpy(), colours.transpose(2, 0, 1) / 255)
        assert self.read(c, 1).values.shape == (1, 4, 5)

    def test_sixteen_bits_are_not_cut_off(self, tmp_path):
        deep = RNG.integers(65536, size=(4, 5)).astype(np.uint16)
        for name in ("d.png", "d.tif"):
            path = saved(tmp_path / name, deep)
            expected = torch.from_numpy(deep.astype(np.float64)) / 65535
            assert torch.allclose(self.read(path, 1).values[0], expected, rtol=1e-6)
            assert self.read(path, 3).values.shape == (3, 4, 5)
            assert 0 <= float(self.read(path, 1, size=(8, 8)).values.max()) <= 1

    def test_real_numbers_are_refused(self, tmp_path):
        path = saved(tmp_path / "f.tif", RNG.normal(size=(4, 5)).astype(np.float32))
        with pytest.raises(LoadError, match="real numbers"):
            self.read(path)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_turns_upright(self, orientation, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = orientation
        array = pixels(4, 6)
        path = saved(tmp_path / "e.png", array, exif=exif)
        turn = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
                5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90}  # fmt: skip
        found = self.read(path, 1)
        assert np.array_equal(found.values[0].numpy(), turn[orientation](array) / 255)
        assert found.turned == (orientation > 1)
        assert decoding.size_of(path, Allowance.of(path)) == found.values.shape[:0:-1]

    @pytest.mark.parametrize("cut", [8, 40, 60, 80])
    def test_truncated(self, cut, tmp_path):
        path = saved(tmp_path / "t.png", pixels(64, 64))
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) * cut // 100])
        with pytest.raises(LoadError, match=r"t\.png is damaged") as caught:
            self.read(path)
        assert "\n" not in caught.value.what

    def test_no_picture_inside_and_formats_that_start_programs(self, tmp_path):
        (tmp_path / "x.png").write_text("hello")
        (tmp_path / "y.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
        for name in ("x.png", "y.png"):
            with pytest.raises(LoadError, match="is no picture of PNG, JPEG"):
                self.read(tmp_path / name)

    def test_decompression_bombs(self, tmp_path):
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        side = 60_000
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))
        before = Image.MAX_IMAGE_PIXELS
        with pytest.raises(LoadError, match="would unpack") as caught:
            self.read(path)
        assert "--max-unpacked" in caught.value.hint
        assert before == Image.MAX_IMAGE_PIXELS

    def test_without_pillow(self, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        with pytest.raises(LoadError, match="pictures are read by Pillow") as caught:
            decoding.pillow()
        assert caught.value.hint == "pip install pillow"


class TestSize:
    def test_the_pictures_own(self, zoo):
        problem = load(zoo, "./conv.pt")
        assert problem.data[0][0].shape == (14, 3, 4, 4)
        assert not any("brought to" in note for note in problem.notes)

    def test_the_one_that_the_model_takes(self, zoo):
        problem = load(zoo, "builtin:lenet")
        assert problem.data[0][0].shape == (14, 3, 32, 32)
        assert "data: pictures of 4x4 were brought to 32x32" in problem.notes
        assert load(zoo, "builtin:mlp(depth=1, in_features=192)").data[0][0].shape == (14, 192)

    def test_what_the_model_says(self, zoo):
        problem = load(zoo, "builtin:fcn(depth=2, channels=2, resolution=7)")
        assert problem.data[0][0].shape == (14, 3, 7, 7)
        assert torch.equal(*problem.data[0])
        assert "data: pictures are prepared as the model's input_shape says" in problem.notes

    def test_different_sizes_ask_for_one(self, zoo):
        saved(zoo / "ant" / "wide.png", pixels(4, 9))
        with pytest.raises(LoadError, match="different sizes") as caught:
            load(zoo, "./conv.pt")
        assert "(size=4)'" in caught.value.hint
        problem = load(f"{zoo}(size=4)", "./conv.pt")
        assert problem.data[0][0].shape == (15, 3, 4, 4)
        assert any("pictures of 2 sizes from 4x4 to 4x9 were brought to 4x4" in note for note in problem.notes)

    def test_the_middle_is_cut_out_as_torchvision_does(self, tmp_path):
        array = pixels(30, 47, 3)
        path = saved(tmp_path / "a.png", array)
        made = decoded(path, Preparation(3, (16, 16), 20), Allowance.of(path)).values
        # torchvision.transforms: Resize(20) gives (20, int(20 * 47 / 30)); CenterCrop(16) starts at round((h - 16) / 2)
        small = Image.fromarray(array).resize((31, 20), 2)
        left, top = round((31 - 16) / 2.0), round((20 - 16) / 2.0)
        expected = np.asarray(small.crop((left, top, left + 16, top + 16))).transpose(2, 0, 1) / 255
        assert np.array_equal(made.numpy(), expected)

    def test_scale_as_asked(self, zoo):
        plain, imagenet = (load(f"{zoo}{o}", "./conv.pt", dtype="float64") for o in ("", "(mean='imagenet')"))
        mean, std = (
            torch.tensor(p, dtype=torch.float64)[:, None, None] for p in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        assert torch.allclose(imagenet.data[0][0], (plain.data[0][0] - mean) / std, rtol=1e-12)
        assert any("over the deviation (0.229, 0.224, 0.225) as asked" in note for note in imagenet.notes)
        assert any("scaled to [0, 1], not centred" in note for note in plain.notes)
        half = load(f"{zoo}(mean=0.5, std=0.5)")
        assert float(half.data[0][0].min()) < -0.9

    @pytest.mark.parametrize(
        "options",
        ["(size=0)", "(size='a')", "(size=(1,2,3))", "(size=True)", "(mean='x')", "(mean=(1,2))", "(std=0.0)",
         "(channels=2)", "(resize=3)", "(size=8, resize=4)", "(shuffle=1)", "(colour=3)", "(size=100000)", "#labels"],
    )  # fmt: skip
    def test_options_that_mean_nothing(self, options, zoo):
        with pytest.raises(HessdiagError) as caught:
            load(f"{zoo}{options}", "./conv.pt")
        assert isinstance(caught.value, SpecError) or options == "(size=100000)"
        assert caught.value.hint


class TestModelsSettings:
    def test_timm(self, zoo, folder):
        (folder / "m.py").write_text(
            "import torch\nfrom torch import nn\nmodel = torch.load('conv.pt', weights_only=False)\n"
            "model.pretrained_cfg = {'input_size': (3, 8, 8), 'crop_pct': 0.8, 'interpolation': 'bicubic',"
            " 'mean': (0.1, 0.2, 0.3), 'std': (0.5, 0.5, 0.25), 'architecture': 'small'}\n"
        )
        problem = load(f"{zoo}(shuffle=False)", "m.py:model", dtype="float64", batch_size=1)
        file = sorted((zoo / "ant").iterdir())[0]
        big = Image.open(file).convert("RGB").resize((10, 10), 3).crop((1, 1, 9, 9))
        mean, std = (np.array(p)[:, None, None] for p in ([0.1, 0.2, 0.3], [0.5, 0.5, 0.25]))
        expected = (np.asarray(big).transpose(2, 0, 1) / 255 - mean) / std
        assert np.allclose(problem.data[0][0][0].numpy(), expected, rtol=1e-12)
        assert "data: pictures are prepared as timm's settings of small say" in problem.notes

    def test_torchvision(self, zoo):
        transforms = pytest.importorskip("torchvision.models").get_model_weights("resnet18").DEFAULT.transforms()
        problem = load(f"{zoo}(shuffle=False)", "torchvision:resnet18", batch_size=1, dtype="float64")
        file = sorted((zoo / "ant").iterdir())[0]
        expected = transforms(Image.open(file).convert("RGB"))
        assert torch.allclose(problem.data[0][0][0].float(), expected, atol=1e-6)

    @pytest.mark.parametrize("settings", [
        {"size": {"height": 8, "width": 8}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.25], "resample": 2},
        {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}, "resample": 3,
         "image_mean": [0.1] * 3, "image_std": [0.2] * 3},
        {"size": {"height": 8, "width": 8}, "do_normalize": False},
    ])  # fmt: skip
    def test_hugging_face(self, settings, zoo, folder):
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                                        image_size=8, patch_size=4, num_labels=3)  # fmt: skip
        transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
        saved(zoo / "ant" / "0.png", pixels(12, 15, 3))
        bare = load(f"{zoo}(shuffle=False)", "hf:vit", batch_size=1)
        assert "data: pictures are prepared as the model's config says of their size" in bare.notes
        kind = "CLIPImageProcessor" if "crop_size" in settings else "ViTImageProcessor"
        (folder / "vit" / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **settings}))
        problem = load(f"{zoo}(shuffle=False)", "hf:vit", batch_size=1)
        assert problem.data[0].keys() == {"pixel_values", "labels"}
        picture = Image.open(zoo / "ant" / "0.png").convert("RGB")
        processor = _processor(transformers, kind, settings)
        expected = processor(picture, return_tensors="pt")["pixel_values"]
        assert torch.allclose(problem.data[0]["pixel_values"], expected, atol=1e-5)

    @pytest.mark.parametrize("content", ['{"size": "x"}', '{"size": {"height": -1, "width": 8}}', '{"size": [[]]}', "[",
                                         '{"size": 8, "image_mean": "a"}', '{"size": 999999}'])  # fmt: skip
    def test_hostile_settings(self, content, zoo, folder):
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                                        image_size=8, patch_size=4, num_labels=3)  # fmt: skip
        transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
        (folder / "vit" / "preprocessor_config.json").write_text(content)
        with pytest.raises(LoadError) as caught:
            load(zoo, "hf:vit")
        assert "\n" not in caught.value.what


def _processor(transformers, kind, settings):
    """transformers' own processor that works by Pillow."""
    names = (f"{kind}Pil", kind)
    found = next(getattr(transformers, name) for name in names if hasattr(transformers, name))
    return found(**settings)
