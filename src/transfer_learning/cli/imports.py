"""Imports Lightning without a part of SciPy that nothing needs before the first step."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class Postponed(ModuleType):
    """Stands for a module until an attribute of it is read that it lacks itself; then the module is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # inspect asks each module for its __file__
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def import_lightning() -> None:
    """Imports Lightning, and with it torchmetrics, which imports scipy.signal only to add its old name `hamming`.

    That takes most of a second, so a stand-in has its place meanwhile. Later imports get scipy.signal itself.
    """
    name = "scipy.signal"
    if name not in sys.modules:
        sys.modules[name] = stand_in = Postponed(name)
        stand_in.hamming = None  # type: ignore[attr-defined]
        import_module("torchmetrics")
        if sys.modules[name] is stand_in:
            del sys.modules[name]
    import_module("pytorch_lightning")
