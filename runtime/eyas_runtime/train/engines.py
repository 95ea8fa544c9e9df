"""The engines by name, each imported only when it is asked for: the fake one runs where torch is not installed."""

import importlib
import threading
from contextlib import suppress
from typing import Final

from eyas_contract import env
from eyas_contract.errors import UserError
from eyas_runtime.train.engine import Context, Engine

MODULES: Final = {"fake": "eyas_runtime.train.fake_engine", "eagle3": "eyas_runtime.train.draft_engine"}


class Preload:
    """Imports an engine's modules behind the back of a rank that has files to compare or an answer to wait for.

    Importing torch takes as long as the whole rest of a restart. Only modules are loaded here: thread counts are a
    property of the thread that sets them, so the engine itself is made by the main thread.
    """

    def __init__(self, kind: str) -> None:
        self._module = MODULES.get(kind)
        self._thread = threading.Thread(target=self._run, name="preload", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the modules are there. What an import raised is raised again by whoever imports them."""
        self._thread.join()

    def _run(self) -> None:
        if self._module is not None:
            with suppress(ImportError):
                importlib.import_module(self._module)


def make_engine(kind: str, context: Context) -> Engine:
    """The engine called `kind`. Imports torch only for the real one. Raises `UserError` for an unknown one."""
    if kind == "fake":
        from eyas_runtime.train.fake_engine import FakeEngine

        return FakeEngine(context)
    if kind == "eagle3":
        from eyas_runtime.train.draft_engine import DraftEngine

        return DraftEngine(context)
    raise UserError(f"{env.TRAINER} is {kind[:40]!r}; it must be eagle3 or fake")
