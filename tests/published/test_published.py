"""What a user installs: sdist and wheel are built from the files that the repository tracks, looked at, and used.

All in one test, so that it is built once. Its processes are short: torch is imported in one of them.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import hessdiag

ROOT = Path(__file__).parents[2]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"


def run(*command, cwd, **environment):
    away = ("PYTHONPATH", "HESSDIAG_", "RANK", "WORLD_SIZE")
    known = {name: value for name, value in os.environ.items() if not name.startswith(away)}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env=known | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def tracked(to):
    """A clean tree: what git would give to somebody who clones."""
    names = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), names):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to / name)


def built(tree):
    """Wheel and sdist; the wheel is built from the sdist."""
    try:
        alone = int(version("setuptools").split(".")[0]) < 77
    except PackageNotFoundError:
        alone = True
    run(sys.executable, "-m", "build", *([] if alone else ["--no-isolation"]), tree, cwd=tree)
    (wheel,), (sdist,) = (tree / "dist").glob("*.whl"), (tree / "dist").glob("*.tar.gz")
    return wheel, sdist


def installed(wheel, folder):
    """A fresh environment with that wheel alone; what it depends on is lent by this one."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / SCRIPTS / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", ask, cwd=folder).strip())
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=folder)
    (site / "lent.pth").write_text(run(sys.executable, "-c", ask, cwd=folder))
    return folder


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="builds what git tracks")
def test_what_is_published_is_whole_and_works(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    tracked(tree)
    wheel, sdist = built(tree)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=tmp_path)
    run(sys.executable, "-m", "check_wheel_contents", wheel, cwd=tmp_path)
    look_into_wheel(wheel, tree)
    look_into_sdist(sdist)
    use(installed(wheel, tmp_path / "fresh"), tmp_path)


def look_into_wheel(wheel, tree):
    """The package, its types, templates, the manual page, the licence; and nothing else."""
    package = {path.relative_to(tree).as_posix() for path in (tree / "hessdiag").rglob("*") if path.is_file()}
    about = f"hessdiag-{hessdiag.__version__}"
    others = {f"{about}.data/data/share/man/man1/hessdiag.1", f"{about}.dist-info/licenses/LICENSE"}
    others |= {
        f"{about}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")
    }
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == package | others
        metadata = message_from_string(archive.read(f"{about}.dist-info/METADATA").decode())
    assert {"hessdiag/py.typed", "hessdiag/__init__.pyi", "hessdiag/results.pyi"} < package
    assert any(name.startswith("hessdiag/report/templates/") for name in package)
    assert not [name for name in package if not re.search(r"\.(py|pyi|html|css|typed)$", name)]
    assert (metadata["Name"], metadata["License-Expression"]) == ("hessdiag", "MIT")
    assert metadata.get_payload().startswith("# ")


def look_into_sdist(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "docs/man/hessdiag.1"} < names
    assert not [name for name in names if name.startswith(("tests", "examples", ".", "docs/gallery"))]


def use(environment, folder):
    """As a console script and as a module, outside of the repository."""
    python, program = environment / SCRIPTS / "python", environment / SCRIPTS / "hessdiag"
    assert run(program, "--version", cwd=folder) == f"hessdiag {hessdiag.__version__}\n"
    assert run(python, "-m", "hessdiag", "--version", cwd=folder) == f"hessdiag {hessdiag.__version__}\n"
    where = run(python, "-c", "import hessdiag; print(hessdiag.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(environment)
    assert (environment / "share" / "man" / "man1" / "hessdiag.1").is_file()
    asked = ("vanishing", "--depth", "8", "--width", "8", "--seeds", "5", "--no-progress", "-o", "r.html")
    assert "Gradient" in run(program, *asked, cwd=folder)
    assert (folder / "r.html").read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff renders the manual page")
def test_the_manual_page_is_rendered_without_a_warning():
    page = ROOT / "docs" / "man" / "hessdiag.1"
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", str(page)], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout)
    for word in ("hessdiag eigs [OPTIONS] MODEL", "--show-python", "HESSDIAG_OPTION", "hessdiag init"):
        assert word in shown
