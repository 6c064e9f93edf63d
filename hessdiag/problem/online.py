"""The Hugging Face hub from machines that may not reach it, and packages that may not fit the installed torch."""

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator

PATIENCE = 3.0  # seconds for the hub to answer, before only files that are here count


def hub_answers() -> bool:
    """Whether the hub can be reached. Its own client tries six times, for half a minute or more."""
    try:
        from huggingface_hub import constants, get_session
    except ImportError:
        return False
    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)  # a name server may take longer than any timeout
    thread.start()
    thread.join(PATIENCE + 1)
    return answered.is_set()


def is_cached(name: str, revision: str | None) -> bool:
    """Whether a model of the hub was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


@contextlib.contextmanager
def offline(so: bool) -> Iterator[None]:
    """Keep libraries from asking a hub that does not answer."""
    if not so:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hide_if_broken(name: str) -> None:
    """Make an optional package that does not fit the installed torch invisible to those that would trip over it."""
    if name in sys.modules or importlib.util.find_spec(name) is None:
        return
    try:
        importlib.import_module(name)
    except Exception:  # operators that are not there, libraries that are not found
        sys.modules[name] = None  # type: ignore[assignment]
