"""The arguments of `train.py` before Hydra reads them: `resume=`, `rerun=` and choices of groups."""

import os
import re
import shlex
from pathlib import Path

from transfer_learning.cli.overrides import as_override, hydra_quoted, quoted
from transfer_learning.cli.project import FOLLOWED, LIST_GROUPS, MAY_CHANGE, MAY_GROW, options
from transfer_learning.runs.config import read_config
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.text import printable

DEFAULTS = ("system=null", "experiment=null", "debug=null")  # as in conf/config.yaml
NO_NAME = re.compile(r"null|true|false|[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)  # values that are no name of a file
HYDRA_OPTIONS = ("--cfg", "--info", "--package")  # of one word, with a value
WITHOUT_VALUE = ("-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version", "--resolve")
FOLDERS = ("hydra.run.dir=", "hydra.sweep.dir=", "sweep=", "resume=", "rerun=")
MODES = {"-m", "--multirun", "-r", "--run", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion"}
LOGGINGS = ("default", "colorlog")  # of hydra/job_logging, those that write train.log


def prepare(arguments: list[str]) -> list[str]:
    """What Hydra gets in the place of the arguments that the user typed. Raises UserError."""
    check_modes(arguments)
    check_form(arguments)
    as_none = dict[str, str]()
    for group in LIST_GROUPS:  # three ways to ask for no member of a group
        as_none |= dict.fromkeys((f"{group}=[]", f"{group}=null", f"~{group}"), f"{group}=none")
    arguments = [quoted(each) for each in arguments if each not in DEFAULTS]
    arguments = [as_none.get(argument, argument) for argument in arguments]
    for argument in arguments:
        check_group(argument)
    return resume_or_rerun(arguments)


def check_modes(arguments: list[str]) -> None:
    """Raises UserError for several options of which Hydra takes only one."""
    modes = [argument for argument in arguments if argument.partition("=")[0] in MODES]
    if len(modes) > 1:
        raise UserError(f"{' '.join(modes)}: expected one of them.")


def check_form(arguments: list[str]) -> None:
    """Raises UserError for an argument that is neither an option nor KEY=VALUE, such as the end of a split path.

    Also for spaces beside =, dashes before a key, and an empty folder, which may come from an unset shell variable.
    """
    for before, argument, after in zip(["", *arguments], arguments, [*arguments[1:], ""]):
        is_open = argument.endswith("=") and after and "=" not in after and after[:1] not in ("-", "~")
        if is_open or ("=" not in argument and after.startswith("=")):
            raise UserError(f"{argument} {after}: expected KEY=VALUE, without spaces beside =.")
        if re.match(r"--\w+(\.\w+)*=", argument) and argument.partition("=")[0] not in HYDRA_OPTIONS:
            raise UserError(f"{argument}: expected KEY=VALUE, without dashes: {argument[2:]}")
        if argument in FOLDERS:
            raise UserError(f"{argument}: expected a folder, or its name.")
        is_value = before.startswith("-") and before not in WITHOUT_VALUE
        if "=" not in argument and argument[:1] not in ("-", "~") and not is_value:
            key, equals, value = before.partition("=")
            hint = f"; a value with spaces needs quotes: {as_override(key, f'{value} {argument}')}" if equals else ""
            raise UserError(f"{argument}: expected KEY=VALUE{hint}.")


def repeated_keys(arguments: list[str]) -> list[str]:
    """A line for each key or group that is given several times with different values: Hydra takes the last one."""
    given: dict[str, list[str]] = {}
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if equals and key[:1] not in ("-", "~"):
            given.setdefault(key.lstrip("+"), []).append(argument)
    several = {key: each for key, each in given.items() if len(set(each)) > 1}
    return [
        printable(f"{' '.join(each)}: {key} is given {len(each)} times; the last one counts.")
        for key, each in several.items()
    ]


def check_folder(argument: str, folder: str | Path) -> None:
    """Raises UserError for the name of a run's folder that Hydra or TensorBoard would take for another one."""
    found = re.search(r"[$\x00-\x1f\x7f\udc80-\udcff]" + ("" if os.sep == "\\" else r"|\\"), str(folder))
    if found:
        reason = f"the folder's name has the character {found[0]!a}, which Hydra or TensorBoard would change"
        raise UserError(printable(f"{argument}: {reason}. Rename the folder, or choose another one."))


def check_group(argument: str) -> None:
    """Raises UserError if the argument chooses for a config group what Hydra does not accept or merges in silence.

    Or if it removes a group, or chooses a logging without train.log, by which runs are found.
    """
    group, _, value = argument.partition("=")
    if group == "hydra/job_logging" and value not in LOGGINGS:
        raise UserError(f"{argument}: a run needs its train.log; expected one of {', '.join(LOGGINGS)}.")
    known = ", ".join(options(group.removeprefix("~")))
    if known and group.startswith("~"):
        raise UserError(f"{argument}: expected {group[1:]}=..., one of {known}.")
    if not known or not value:
        return
    is_list = value.startswith("[")
    names = [name.strip() for name in value.strip("[]").split(",")]
    if (is_list and group not in LIST_GROUPS) or any(NO_NAME.fullmatch(name) for name in names):
        raise UserError(f"{argument}: expected one of {known}.")
    if is_list and (twice := next((name for name in names if names.count(name) > 1), None)):
        raise UserError(f"{argument}: {twice} is named twice.")


def resume_or_rerun(arguments: list[str]) -> list[str]:
    """`resume=RUN` and `rerun=RUN`: that run's config.yaml takes the place of conf/config.yaml.

    Hydra opens the folder of a run before it calls the program, so this happens before Hydra starts.

    Raises:
        UserError: no run there, or its config is damaged; beside `resume` a setting that would change the run, beside
            `rerun` a config group, or a key that others have followed.
    """
    runs = [each for each in arguments if each.startswith(("resume=", "rerun="))]
    if len(runs) > 1:
        raise UserError(f"{' '.join(runs)}: expected one of them.")
    if not runs:
        return arguments
    (named,) = runs
    key, _, value = named.partition("=")
    if value[:1] in ("'", '"') and value[-1:] == value[:1]:  # as Hydra reads it
        value = value[1:-1]
    folder = Path(os.path.expanduser(value)).resolve()
    check_folder(named, folder)
    if not (folder / "config.yaml").is_file() or not (folder / "train.log").is_file():
        raise UserError(f"{named}: no run there; expected a folder below outputs/ with config.yaml and train.log.")
    config = read_config(folder / "config.yaml")
    if key == "resume" and config.get("find_lr"):
        way = f"{shlex.quote(f'rerun={value}')} find_lr=false optimizer.lr=... trains with its settings."
        raise UserError(f"{named}: the learning-rate finder trained nothing that could be resumed. {way}")
    keys = {each: each.partition("=")[0].lstrip("+~") for each in arguments if each != named}
    refused = [each for each in keys if each.partition("=")[0] not in (*MAY_CHANGE, MAY_GROW)]
    if key == "resume" and refused:
        expected = f"beside resume=... expected nothing but {MAY_GROW}=...; rerun=... takes other settings."
        raise UserError(f"{' '.join(refused)}: {expected}")
    way = f"Take the command from {folder}/provenance.json, and change that."
    if groups := [each for each in keys if options(keys[each]) and not keys[each].startswith("hydra/")]:
        reason = "beside rerun=... expected single values, such as optimizer.lr=1e-3: groups were composed at the start"
        raise UserError(f"{' '.join(groups)}: {reason} of the run. {way}")
    if followed := [each for each in keys if keys[each] in FOLLOWED]:
        reason = "beside rerun=... the run's name, image size, learning rate ... would stay as they were"
        raise UserError(f"{' '.join(followed)}: {reason}. {way}")
    place = f"{'hydra.run.dir' if key == 'resume' else 'repeats'}={hydra_quoted(str(folder))}"
    rest = [place if each == named else each for each in arguments]
    return [f"--config-path={folder}", "--config-name=config", *rest]
