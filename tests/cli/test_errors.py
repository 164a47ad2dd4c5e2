import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from transfer_learning.cli.errors import as_override


def test_a_path_with_spaces_and_brackets_is_shown_in_quotes(in_process):
    code, output = in_process("data.root=/my photos (1)")
    assert code == 1 and """in quotes it can: "data.root='/my photos (1)'\"""" in output and "Traceback" not in output


@pytest.mark.parametrize("value", ["/my photos (1)", "it's", "a,b", "x=y", "[1]", "${seed}", "plain/x-1.5"])
def test_a_shown_override_means_the_same_to_shell_and_hydra(value):
    (argument,) = shlex.split(as_override("data.root", value))
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert override.key_or_group == "data.root" and override.value() == value
