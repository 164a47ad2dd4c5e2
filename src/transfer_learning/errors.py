"""The one error that a user's mistake raises, and how an error is told: on one line, without a traceback."""

import errno

from omegaconf.errors import MissingMandatoryValue

NO_FAULT_OF_THE_CODE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


class UserError(Exception):
    """A mistake that the user can mend. The message is one line: what is wrong, what was expected, what to do."""


def first_line(error: Exception) -> str:
    """Another library's error, short enough to stand within a message of ours."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def one_line(error: Exception, place: str = "") -> str:
    """An error's message on a line of its own, also where another library's needs several, with what to do where the system has the word.

    Args:
        place: the file or folder that the system's error is about, where that does not say.
    """
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: has no value; give it one, {error.full_key}=…"
    if isinstance(error, OSError) and error.errno in NO_FAULT_OF_THE_CODE:
        return f"{error.filename or place}: {error.strerror}. Make room or make it writable, or choose another folder: hydra.run.dir=…"
    return " ".join(str(error).split())
