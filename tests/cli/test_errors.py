import errno
import os
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from joblib.externals.loky.process_executor import TerminatedWorkerError

from transfer_learning.cli.errors import is_user_error, name_keys, one_line
from transfer_learning.cli.overrides import as_override, as_typed
from transfer_learning.utilities.errors import ArgumentError, UserError


def test_a_path_with_spaces_and_brackets_is_shown_in_quotes(in_process):
    code, output = in_process("data.root=/my photos (1)")
    assert code == 1 and """in quotes it can: "data.root='/my photos (1)'\"""" in output and "Traceback" not in output


def test_the_elements_of_a_list_are_shown_in_quotes_each(in_process):
    code, output = in_process("data.classes=[Löwe (1),Tiger]")
    assert code == 1 and output.endswith("""in quotes it can: "data.classes=['Löwe (1)','Tiger']"\n""")


@pytest.mark.parametrize(
    "value",
    [
        *("/my photos (1)", "it's", "a,b", "x=y", "[1]", "${seed}", "plain/x-1.5", "~/x", "a@b+c", "größe"),
        *("a\\'b", "ends in \\", "\\", "\\\\", "\\'", r"(\d+)\\' \"x\" \\"),
    ],
)
def test_a_shown_override_means_the_same_to_shell_and_hydra(value):
    (argument,) = shlex.split(as_override("data.root", value))
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert override.key_or_group == "data.root" and override.value() == value


def test_an_interpolation_of_a_key_that_is_not_there_is_named_as_typed(in_process):
    code, output = in_process("seed=${nope}")
    assert code == 1 and output.startswith("${nope}: the config has no key nope;") and output.count("\n") == 1


def test_a_killed_process_of_a_sweep_is_one_line():
    error = TerminatedWorkerError("A worker process was unexpectedly terminated.\n\nThe exit codes are {SIGKILL(-9)}")
    assert is_user_error(error)
    assert one_line(error).startswith("a process of the sweep was killed, perhaps because memory ran out. ")


@pytest.mark.parametrize("key, value", [("data.file_column", 0), ("data.label_column", True)])
def test_a_number_that_should_be_a_text_is_shown_in_quotes(composed, key, value):
    cfg = composed("data=table", "data.table=t.csv")
    with pytest.raises(UserError) as raised, name_keys(cfg, "data"):
        raise ArgumentError(key.partition(".")[2], value, "expected a valid string.")
    message = str(raised.value)
    assert message.startswith(f"{key}={as_typed(value)}: expected a valid string. In quotes it is one: ")
    (argument,) = shlex.split(message.partition("is one: ")[2])
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert override.value() == as_typed(value)


@pytest.mark.parametrize(
    "code, way",
    [
        (errno.ENAMETOOLONG, "Choose a shorter name"),
        (errno.ENOENT, "Make its folder"),
        (errno.ENOSPC, "Make room or make it writable"),
    ],
)
def test_an_error_of_the_system_is_one_line(code, way):
    error = OSError(code, os.strerror(code), "/a\x1b/b")
    assert is_user_error(error)
    assert one_line(error) == f"/a\\x1b/b: {os.strerror(code)}. {way}, or choose another folder."
    assert one_line(OSError(code, os.strerror(code)), "standard output").startswith("standard output: ")
