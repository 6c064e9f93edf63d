"""Where `-o` and `--save` go, and what is left when a place cannot be written."""

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from hessdiag import files
from hessdiag.questions.diag_share import measure as measuring
from hessdiag.report import html, terminal

MODEL = "builtin:lenet"


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_link_stays_and_its_file_is_replaced_with_its_permissions(hessdiag, fake, tmp_path):
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "real.json"
    target.write_text("old")
    target.chmod(0o604)
    before = target.stat().st_ino
    (tmp_path / "r.json").symlink_to("deep/real.json")
    assert hessdiag("diag-share", MODEL, "-o", "r.json").code == 2, "what the link points to exists"
    assert hessdiag("diag-share", MODEL, "-o", "r.json", "--force").code == 0
    assert (tmp_path / "r.json").is_symlink()
    assert json.loads(target.read_text())["schema"] == "hessdiag/1"
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert target.stat().st_ino != before, "replaced in one step, not overwritten in place"
    assert left(tmp_path / "deep") == ["real.json"]


def test_a_link_to_nothing_creates_what_it_points_to(hessdiag, fake, tmp_path):
    (tmp_path / "r.json").symlink_to("new.json")
    assert hessdiag("diag-share", MODEL, "-o", "r.json").code == 0
    assert (tmp_path / "r.json").is_symlink()
    assert (tmp_path / "new.json").is_file()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_the_umask(hessdiag, fake, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        assert hessdiag("diag-share", MODEL, "-o", "r.json").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == mode


def test_a_named_pipe_is_written_to(hessdiag, fake, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe.json").read_text()))
    reader.start()
    outcome = hessdiag("diag-share", MODEL, "-o", "pipe.json")
    reader.join(10)
    assert outcome.code == 0
    assert json.loads(got[0])["command"] == "diag-share"
    assert stat.S_ISFIFO((tmp_path / "pipe.json").stat().st_mode)


def test_devices_are_written_to(hessdiag, fake):
    assert hessdiag("diag-share", MODEL, "-o", "/dev/null").code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "-", "link"])
def test_stdout_by_name_is_written_once(hessdiag, fake, tmp_path, name):
    (tmp_path / "link").symlink_to("/dev/stdout")
    outcome = hessdiag("diag-share", MODEL, "-o", name, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["command"] == "diag-share"
    assert left(tmp_path) == ["link"]


def test_a_full_device_costs_the_file_and_not_the_answer(hessdiag, fake, tmp_path):
    plain = hessdiag("diag-share", MODEL).out
    outcome = hessdiag("diag-share", MODEL, "-o", "/dev/full")
    assert (outcome.code, outcome.out) == (3, plain)
    assert "error: cannot write /dev/full: no space left on device." in outcome.err
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def vanish(folder):
    (folder / "away").rename(folder / "gone")


def appear(folder):
    (folder / "away" / "r.json").write_text("theirs")


def turn_into_a_folder(folder):
    (folder / "away" / "r.json").mkdir()


@pytest.mark.parametrize("happens", [vanish, appear, turn_into_a_folder])
def test_what_happens_to_the_place_meanwhile_costs_the_file_and_not_the_answer(
    hessdiag, fake, tmp_path, monkeypatch, happens
):
    (tmp_path / "away").mkdir()
    plain = hessdiag("diag-share", MODEL).out
    measured = measuring.diag_share
    monkeypatch.setattr(measuring, "diag_share", lambda *args, **kw: (happens(tmp_path), measured(*args, **kw))[1])
    outcome = hessdiag("diag-share", MODEL, "-o", "away/r.json")
    assert (outcome.code, outcome.out) == (3, plain)
    assert "error: cannot write away/r.json: " in outcome.err
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]
    if happens is appear:
        assert (tmp_path / "away" / "r.json").read_text() == "theirs"


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path):
    def fill(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "old").write_text("whole")
    for name in ("new", "old"):
        with pytest.raises(OSError, match="No space"):
            files.write(tmp_path / name, fill)
    assert left(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "whole"


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".json", "a\0b.json", "\udcff\ud800.json", "r.json/", "loop.json", "file/r.json"]
)
def test_names_that_cannot_be_are_found_before_anything_is_computed(hessdiag, fake, tmp_path, name):
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "file").write_text("")
    outcome = hessdiag("diag-share", MODEL, "-o", name)
    assert (outcome.code, fake.calls) == (2, []) or name == "r.json/"  # which pathlib reads as r.json
    assert len(outcome.err.splitlines()) <= 2 or outcome.code == 0
    assert "internal" not in outcome.err


def test_names_as_long_as_the_system_allows_are_written(hessdiag, fake, tmp_path):
    name = "x" * 250 + ".json"
    assert hessdiag("diag-share", MODEL, "-o", name).code == 0
    assert left(tmp_path) == [name]


def test_a_page_that_cannot_be_drawn_costs_the_page_and_not_the_answer(hessdiag, fake, tmp_path, monkeypatch):
    plain = hessdiag("diag-share", MODEL).out
    monkeypatch.setattr(html, "render", lambda doc, view: 1 / 0)
    outcome = hessdiag("diag-share", MODEL, "-o", "r.html")
    assert (outcome.code, outcome.out, left(tmp_path)) == (3, plain, [])
    assert "could not be rendered as html (ZeroDivisionError" in outcome.err


def test_a_text_that_cannot_be_drawn_is_printed_as_json_and_the_file_is_written(hessdiag, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "render", lambda view, width, color: 1 / 0)
    outcome = hessdiag("diag-share", MODEL, "-o", "r.html")
    assert outcome.code == 3
    assert json.loads(outcome.out)["command"] == "diag-share"
    assert "could not be rendered as text (ZeroDivisionError" in outcome.err
    assert left(tmp_path) == ["r.html"]


def test_eigenvectors_that_cannot_be_saved_cost_the_file_and_not_the_answer(hessdiag, tmp_path):
    (tmp_path / "v.npz").symlink_to("/dev/full")
    outcome = hessdiag("eigs", "builtin:mlp(width=3, depth=2)", "--save", "v.npz", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["status"] == "ok"
    assert "cannot write v.npz" in outcome.err
    assert (tmp_path / "v.npz").is_symlink()


def test_what_was_redirected_is_not_replaced_by_its_name(tmp_path):
    """`-o /dev/stdout > FILE`: /dev/stdout is that file then, and it has been opened already."""
    with open(tmp_path / "r.json", "w") as file:
        command = [sys.executable, "-m", "hessdiag", "report", "missing.json", "-o", "/dev/stdout"]
        subprocess.run(command, stdout=file, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
        before = os.fstat(file.fileno()).st_ino
    assert (tmp_path / "r.json").stat().st_ino == before
