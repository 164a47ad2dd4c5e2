"""Errors that a user can correct. Their messages are one line: what is wrong, what was expected, what to do."""

from importlib.util import find_spec


class UserError(Exception):
    """A mistake that the user can correct; it is shown without a traceback."""


class ArgumentError(UserError):
    """An argument whose value is not allowed.

    The message names the argument as it is written in Python: `unfreeze='block9': expected ...`. The command line shows
    the argument's config key in its place.
    """

    def __init__(self, argument: str, value: object, message: str):
        super().__init__(f"{argument}={value!r}: {message}")
        self.argument, self.value, self.message = argument, value, message


def first_line(error: BaseException) -> str:
    """The type and the first line of another library's error, to be quoted in a message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def needs(module: str, extra: str) -> None:
    """Raises UserError if a module of one of the project's extras is not installed."""
    if not find_spec(module):
        raise UserError(f"this needs {module}, which is not installed: pip install -e '.[{extra}]'")
