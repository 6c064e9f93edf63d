"""The Hugging Face hub from machines that may not reach it, and packages that may not fit the installed torch."""

import contextlib
import importlib
import importlib.util
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import torch

from hessdiag.problem.replaced import replaced

PATIENCE = 2.0  # seconds for a host to answer, before only files that are here count
TORCHVISION = "https://download.pytorch.org"  # where its weights come from


def hub_answers() -> bool:
    """Whether the hub can be reached. Its own client tries six times, for half a minute or more."""
    try:
        from huggingface_hub import constants, get_session
    except ImportError:
        return False
    if constants.HF_HUB_OFFLINE:
        return False
    return _in_time(lambda: get_session().head(constants.ENDPOINT, timeout=PATIENCE))


def answers(address: str) -> bool:
    """Whether a host can be reached, whatever it says."""

    def ask() -> None:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()

    return _in_time(ask)


def _in_time(ask: Callable[[], object]) -> bool:
    """Whether a question is answered soon; a name server may take longer than any timeout."""
    answered = threading.Event()

    def listen() -> None:
        with contextlib.suppress(Exception):
            ask()
            answered.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def is_cached(name: str, revision: str | None) -> bool:
    """Whether a model of the hub was downloaded before."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


@contextlib.contextmanager
def offline(so: bool) -> Iterator[None]:
    """Keep libraries from asking hosts that do not answer: the hub, and those of weights that torch downloads."""
    if not so:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(torch.hub, urlopen=_unreachable))
        with contextlib.suppress(ImportError):
            from huggingface_hub import constants

            stack.enter_context(replaced(constants, HF_HUB_OFFLINE=True))
        yield


def _unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("no host is asked, for none answers")


def hide_if_broken(name: str) -> None:
    """Make an optional package that does not fit the installed torch invisible to those that would trip over it."""
    if name in sys.modules or importlib.util.find_spec(name) is None:
        return
    try:
        importlib.import_module(name)
    except Exception:  # operators that are not there, libraries that are not found
        sys.modules[name] = None  # type: ignore[assignment]
