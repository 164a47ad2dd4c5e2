"""From config to objects. The only place that calls `instantiate`."""

import difflib
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from transfer_learning.cli import resolvers  # noqa: F401 (registers the functions that conf/ calls)
from transfer_learning.cli.errors import name_keys
from transfer_learning.cli.overrides import as_typed
from transfer_learning.cli.project import PROJECT, how_to_choose, options
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.models.weights import SUFFIXES as WEIGHTS_SUFFIXES
from transfer_learning.runs.config import flat
from transfer_learning.utilities.errors import ArgumentError, UserError, first_line
from transfer_learning.utilities.validation import NAME_OR_PATH, PATH, check_types, is_marked


def build(cfg: DictConfig, key: str, try_with: tuple = (), leave_out: Collection[str] = (), **given: Any) -> Any:
    """The object that the node at `key` describes by `_target_` and arguments; None for null.

    The object is called once with `try_with`, since torch's optimizers check their arguments late. `leave_out` are keys
    of the node that are no arguments, `given` are arguments that the config does not have. Raises UserError for a wrong
    value; the message begins with its key.
    """
    node = OmegaConf.select(cfg, key)
    if node is None:
        return None
    if not OmegaConf.is_dict(node):
        raise UserError(f"{key}={as_typed(node)}: expected {key}.NAME=VALUE, or ~{key}, which leaves it out.")
    if "_target_" not in node:
        group, _, name = key.rpartition(".")
        raise UserError(f"{key}: {name} is not chosen; {how_to_choose(group.replace('.', '/'), name)}.")
    arguments = {name: value for name, value in _plain(node).items() if name[0] != "_" and name not in leave_out}
    called = resolve_target(cfg, f"{key}._target_")
    target = {"_target_": node["_target_"], "_partial_": node.get("_partial_", False), "_convert_": "all"}

    def make(arguments: Mapping[str, Any]) -> Any:
        made = instantiate({**target, **arguments}, **given)
        if try_with:
            made(*try_with)
        return made

    with name_keys(cfg, key):
        try:
            if not target["_target_"].startswith("transfer_learning."):
                check_types(called, arguments)
            return make(arguments)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
            if isinstance(cause, UserError):
                raise cause from cause.__cause__  # not from `error`, whose cause it is
            message = " ".join(str(cause).split())
            wrong = _wrong_argument(make, arguments, message)
            if wrong:
                raise ArgumentError(wrong, arguments[wrong], message) from cause
            raise UserError(f"{key}: {message}") from cause


def _wrong_argument(make: Callable, arguments: Mapping[str, Any], message: str) -> str | None:
    """The argument that another library's error is about, None if that is not clear.

    The only one that its message names, else the first one without which the object can be made.
    """
    named = [name for name in arguments if re.search(rf"\b{name}\b", message)]
    if len(named) == 1:
        return named[0]

    def can_be_made_without(name: str) -> bool:
        try:
            make({other: value for other, value in arguments.items() if other != name})
            return True
        except Exception:  # of any kind
            return False

    return next(filter(can_be_made_without, arguments), None)


def build_all(cfg: DictConfig, group: str) -> dict[str, Any]:
    """The objects of a group such as `callbacks`, by name. Raises UserError as `build`, and for null."""
    names = list(OmegaConf.select(cfg, group) or {})
    for name in names:
        if OmegaConf.select(cfg, f"{group}.{name}") is None:
            raise UserError(f"{group}.{name}=null: expected ~{group}.{name}, which leaves it out.")
    return {name: build(cfg, f"{group}.{name}") for name in names}


def build_data(cfg: DictConfig) -> ImageDataModule:
    """The data module. Its keys are flat: each goes to the objects whose constructors have an argument of that name.

    Raises UserError for a wrong value, or for a key that no object reads.
    """
    settings = {key: value for key, value in _plain(cfg.data).items() if key not in ("source", "split", "augmentation")}

    def accepted(cls: type) -> dict[str, Any]:
        """The settings that are arguments of its constructor."""
        return {key: settings[key] for key in inspect.signature(cls).parameters if key in settings}

    augmentation = list(build_all(cfg, "data.augmentation").values())
    with name_keys(cfg, "data"):
        classes = _part_classes(cfg)
        parts: dict[str, Any] = {name: cls(**accepted(cls)) for name, cls in classes.items()}
        read = {key for cls in (*classes.values(), ImageDataModule) for key in accepted(cls)}
        if unread := settings.keys() - read:
            key = min(unread)
            raise ArgumentError(key, settings[key], f"nothing reads it; expected one of {', '.join(sorted(read))}.")
        return ImageDataModule(**parts, augmentation=augmentation, **accepted(ImageDataModule))


def _part_classes(cfg: DictConfig) -> dict[str, type]:
    """The classes of the objects that the data module gets, by its arguments."""
    classes = {key: resolve_target(cfg, f"data.{key}") for key in ("source", "split")}
    return {**classes, "preprocessing": Preprocessing}


def resolve_target(cfg: DictConfig, key: str) -> Any:
    """The class or function whose full name is at `key`. Raises UserError: no such one, or its module has an error."""
    name = OmegaConf.select(cfg, key)
    try:
        return pkgutil.resolve_name(name)
    except Exception as error:  # of many kinds
        group = key.removesuffix("._target_").replace(".", "/")
        way = f"; {group}=NAME chooses a file of conf/{group}/" if options(group) else ""
        reason = f"it cannot be imported ({first_line(error)})"
        raise UserError(f"{key}={as_typed(name)}: {reason}. Expected MODULE.CLASS{way}.") from error


def absolute_paths(cfg: DictConfig) -> None:
    """Makes the paths of data and model absolute: arguments that are annotated as `PathArgument` or `NameOrPath`."""
    classes = [("data", cls) for cls in (*_part_classes(cfg).values(), ImageDataModule)]
    for group, cls in [*classes, ("model", resolve_target(cfg, "model._target_"))]:
        for argument, annotation in get_type_hints(cls.__init__, include_extras=True).items():  # type: ignore[misc]
            value = cfg[group].get(argument)
            if not isinstance(value, (str, int, float)) or value == "":
                continue
            path = os.path.join(HydraConfig.get().runtime.cwd, os.path.expanduser(str(value)))
            is_path = is_marked(annotation, PATH)
            if is_marked(annotation, NAME_OR_PATH):
                is_path = looks_like_path(str(value), path)
            if is_path:
                # `LINK/..` is the parent of what the link points to.
                cfg[group][argument] = os.path.realpath(path) if ".." in Path(path).parts else os.path.normpath(path)


def looks_like_path(typed: str, path: str) -> bool:
    """Whether the text of a name or a path is a path; `path` is where it would lead. Names may have dots."""
    has_folder = re.search(r"[/\\]", typed) is not None
    return has_folder or typed.endswith(WEIGHTS_SUFFIXES) or ("." in typed and os.path.exists(path))


def check_added_keys(cfg: DictConfig, overrides: list[str]) -> None:
    """Raises UserError for a key that was added with `+` and that nothing reads, and suggests another.

    Keys below those of the groups, such as `data.x`, are read by the objects that are built from them.
    """
    added = [override for override in overrides if override.startswith("+")]
    if not added:
        return
    groups = {path.name for path in (PROJECT / "conf").iterdir() if path.is_dir()} | {"hydra"}
    paths = [PROJECT / "conf" / "config.yaml", *PROJECT.glob("conf/model/*.yaml")]
    files: list[Any] = [OmegaConf.load(path) for path in paths]
    known = {key for file in files for key in [*file, *(f"recipe.{name}" for name in file.get("recipe", {}))]}
    for override in added:
        key = override.partition("=")[0].lstrip("+")
        if key not in known and re.split("[./@]", key)[0] not in groups:
            leaves = {each.rpartition(".")[2]: each for each in flat(_plain(cfg)) if each != key}
            similar = difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1)
            hint = f"; did you mean {leaves[similar[0]]}?" if similar else "."
            raise UserError(f"{override}: nothing reads {key}{hint}")


def _plain(node: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
