"""Use models that train.py has trained, audit labelled images, and manage the cache."""

import argparse
import inspect
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from transfer_learning.cli.errors import is_user_error, one_line, tracebacks_wanted
from transfer_learning.cli.output import (
    LIGHTNING_LOGGER,
    exit_at_broken_pipe,
    open_streams,
    without_device_notices,
    without_notices,
)
from transfer_learning.cli.verbs import verbs
from transfer_learning.utilities.errors import ArgumentError, UserError

PROGRAM = "transfer-learning"


def main(arguments: Sequence[str] | None = None) -> None:
    """Calls a verb and exits: with 1 after an error, 130 after Ctrl-C, otherwise with the verb's code."""
    open_streams()
    with exit_at_broken_pipe():  # --help prints
        options = parser().parse_args(arguments)
    # What the package reports goes to stderr; stdout is for results.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    reports = logging.getLogger(LIGHTNING_LOGGER)
    reports.setLevel(logging.INFO)
    reports.addFilter(without_notices)
    reports.addFilter(without_device_notices)
    try:
        check_not_empty(sys.argv[1:] if arguments is None else arguments)
        with exit_at_broken_pipe():
            sys.exit(options.run(options))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if tracebacks_wanted() or not is_user_error(error):
            raise
        message = one_line(error, "standard output")
        if isinstance(error, ArgumentError) and (given := getattr(options, error.argument, None)) is not None:
            message = f"--{error.argument} {given}: {error.message}"
        sys.exit(f"{PROGRAM}: {message}")


class VerbParser(argparse.ArgumentParser):
    """Options may stand between the other arguments: `evaluate RUN --tta flip FOLDER`."""

    _is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._is_intermixed or "--" in (args or ()):  # argparse loses -- where it intermixes
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False


def check_not_empty(arguments: Sequence[str]) -> None:
    """Raises UserError for an empty argument, such as that of a variable which is not set."""
    for number, argument in enumerate(arguments, 1):
        if not argument or re.fullmatch("--[a-z-]+=", argument):
            reason = "the last argument is empty; expected a value, or none. Is a variable of the shell not set?"
            raise UserError(f"{shlex.join(arguments[:number])}: {reason}")


def parser() -> argparse.ArgumentParser:
    """The parser of the program, with a parser for each verb."""
    top = argparse.ArgumentParser(PROGRAM, description=inspect.getdoc(sys.modules[__name__]))
    subparsers = top.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=VerbParser)
    for name, verb in verbs().items():
        examples = "\n".join(f"  {PROGRAM} {name} {example}" for example in verb.EXAMPLES)
        text = inspect.getdoc(verb) or ""
        each = subparsers.add_parser(
            name,
            help=text.splitlines()[0].rstrip("."),
            description=text,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.register("type", "path", os.path.expanduser)
        verb.add_arguments(each)
        each.set_defaults(run=verb.run)
    return top
