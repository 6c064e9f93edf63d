"""Packages that are not installed or do not work, in words; of the standard library alone, for any may be missing."""

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python"}


def distribution(module: str) -> str:
    """What `pip install` takes to bring a module.

    >>> distribution("sklearn.datasets"), distribution("rich.cells")
    ('scikit-learn', 'rich')
    """
    root = module.partition(".")[0]
    return _DISTRIBUTIONS.get(root, root)


def lacking(error: BaseException) -> tuple[str, str] | None:
    """Which package an import failed for and what brings it; `None` if it is none of others' packages.

    >>> lacking(ModuleNotFoundError("No module named 'rich.cells'", name="rich.cells"))
    ('rich, which is not installed', 'pip install rich')
    >>> lacking(ImportError("cannot import name 'box' from 'rich'", name="rich"))
    ("rich, which is installed and does not work: cannot import name 'box' from 'rich'", 'pip install --upgrade rich')
    """
    if not isinstance(error, ImportError) or (error.name or "").partition(".")[0] == "hessdiag":
        return None
    why = (str(error).splitlines() or [""])[0]
    if not error.name:
        return f"a package that does not work here: {why}", "--traceback shows which; pip install --force-reinstall it"
    package = distribution(error.name)
    if isinstance(error, ModuleNotFoundError):
        return f"{package}, which is not installed", f"pip install {package}"
    return f"{package}, which is installed and does not work: {why}", f"pip install --upgrade {package}"
