"""The verbs of `python -m transfer_learning`. Each module of this package is one.

A verb's docstring is its help. It has `EXAMPLES`, command lines without the program's name; `add_arguments(parser)`;
and `run(arguments)`, which raises UserError and returns the exit code. Arguments of `type="path"` may begin with ~. It
imports torch and other large libraries in `run`, for which `--help` should not wait.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def verbs() -> dict[str, ModuleType]:
    """The modules of all verbs, by name."""
    return {name: import_module(f"{__name__}.{name}") for _, name, _ in iter_modules(__path__)}
