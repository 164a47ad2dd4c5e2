"""Messages for the errors of Hydra and OmegaConf that typed arguments cause."""

import difflib
import re
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from transfer_learning.cli.overrides import as_override, hydra_quoted, in_shell
from transfer_learning.cli.project import LIST_GROUPS, how_to_choose, options
from transfer_learning.runs.config import flat
from transfer_learning.utilities.text import some


def config_message(error: BaseException) -> str | None:
    """What to tell the user; None for other errors, and for those whose own message says enough."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_file(str(error.missing_cfg_file))
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        shown = as_override(key, value)
        if value.startswith("[") and value.endswith("]"):  # in quotes as a whole, it would be a text
            elements = [hydra_quoted(each.strip(" '\"")) for each in value[1:-1].split(",")]
            shown = in_shell(f"{key}=[{','.join(elements)}]")
        return f"{error.override}: Hydra cannot read the value; in quotes it can: {shown}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: has no value; give it one, {error.full_key}=..."
    for each in (error, error.__cause__):
        if isinstance(each, (ConfigAttributeError, ConfigKeyError)) and "is not in struct" in str(each):
            return _unknown_key(each)
    if found := re.match(r"(Ambiguous value for argument|Sweep parameters) '(.*)'", text):
        return _several_values(found[2], may_be_meant=found[1].startswith("Ambiguous"))
    if missing := re.match("Interpolation key '(.+)' not found", text):
        return f"${{{missing[1]}}}: the config has no key {missing[1]}; expected one that it has, such as ${{seed}}."
    return None


def _unknown_file(path: str) -> str | None:
    group, _, name = path.rpartition("/")
    if group and (known := options(group)):
        return f"{group}={name}: there is no such file in conf/{group}/; expected one of {', '.join(known)}."
    return None


def _several_values(override: str, may_be_meant: bool) -> str:
    """For several values without -m. `may_be_meant`: one value, a list or with commas, may have been meant."""
    message = f"{override}: several values are a sweep, which needs -m: python train.py -m ..."
    if not may_be_meant:
        return f"{message}."
    key, _, value = override.partition("=")
    ways = f"a list needs brackets, '{key}=[{value}]', a value with commas quotes, {as_override(key, value)}"
    return f"{message}; {ways}."


def _unknown_key(error: Any) -> str:
    """The message of OmegaConf's error about a key that the config lacks, with the keys that may be meant."""
    config = flat(OmegaConf.to_container(error.parent_node._get_root()))  # type: ignore[arg-type]
    leaves = [key for key in config if not key.startswith(("hydra.", "recipe."))]
    prefix, dot, name = error.full_key.rpartition(".")
    beside = sorted(str(key) for key in error.parent_node if str(key)[:1] != "_")
    group = prefix.replace(".", "/")
    if group in LIST_GROUPS and name in options(group):
        return f"{error.full_key}: {name} is not chosen; {how_to_choose(group, name)}."
    if prefix and not beside and (known := options(group)):  # such as scheduler: null
        return f"{error.full_key}: {group} is none; choose it too, {group}=... of {', '.join(known)}."
    meant = [key for key in leaves if key.rpartition(".")[2] == name]
    meant = meant or [prefix + dot + key for key in difflib.get_close_matches(name, beside, n=1)]
    if not meant and not prefix:
        near = difflib.get_close_matches(name, [key.rpartition(".")[2] for key in leaves], n=1)
        meant = [key for key in leaves if key.rpartition(".")[2] in near]
    hint = "conf/ has them all." if not beside or not prefix else f"expected one of {some(beside, 30)}."
    hint = f"did you mean {' or '.join(meant[:3])}?" if meant else hint
    return f"{error.full_key}: there is no such key in the config; {hint}"
