"""The one error that a user's mistake raises: train.py prints its message, without a traceback."""


class UserError(Exception):
    """A mistake that the user can mend. The message is one line: what is wrong, what was expected, what to do."""


def first_line(error: Exception) -> str:
    """Another library's error, short enough to stand within a message of ours."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
