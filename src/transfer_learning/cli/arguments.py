"""The arguments of `train.py` before Hydra reads them: `resume=`, `rerun=`, empty groups and old names."""

import os
import re
from pathlib import Path

from transfer_learning.cli.resolvers import MAY_CHANGE, MAY_GROW, PROJECT
from transfer_learning.runs.config import read_config
from transfer_learning.utilities.errors import UserError

LIST_GROUPS = ("logger", "callbacks", "metrics")
RENAMED = {  # pattern -> replacement
    r"^(\+*)model\.lr_share\b": r"\1model.backbone_lr_scale",
    r"^(\+*)model\.head_epochs\b": r"\1model.unfreeze_at_epoch",
    r"^(\+*model\.preprocess=(?:.*,)?)rescale\b": r"\1tutorial",
    r"^(model=(?:.*,)?)frozen\b": r"\1pretrained",
}


def prepare(arguments: list[str]) -> list[str]:
    """What Hydra gets in the place of the arguments that the user typed. Raises UserError."""
    for argument in arguments:
        for pattern, replacement in RENAMED.items():
            if re.search(pattern, argument):
                raise UserError(f"{argument}: the name has changed; type {re.sub(pattern, replacement, argument)}")
    empty = {f"{group}=[]": group for group in LIST_GROUPS} | {f"~{group}": group for group in LIST_GROUPS}
    return resume_or_rerun([f"{empty[each]}=none" if each in empty else each for each in arguments])


def resume_or_rerun(arguments: list[str]) -> list[str]:
    """`resume=RUN` and `rerun=RUN`: that run's config.yaml takes the place of conf/config.yaml.

    Hydra opens the folder of a run before it calls the program, so this happens before Hydra starts.

    Raises:
        UserError: no run there, or its config is damaged or of an older version; beside `resume` a setting that would
            change the run, beside `rerun` a config group.
    """
    named = [each for each in arguments if each.startswith(("resume=", "rerun="))]
    if not named:
        return arguments
    key, _, value = named[0].partition("=")
    folder = Path(os.path.expanduser(value.strip("'\""))).resolve()
    others = [each for each in arguments if each != named[0]]
    if not (folder / "config.yaml").is_file() or not (folder / "train.log").is_file():
        raise UserError(f"{named[0]}: no run there; expected a folder below outputs/ with config.yaml and train.log.")
    check_version(read_config(folder / "config.yaml"), folder)
    refused = [each for each in others if each.partition("=")[0] not in (*MAY_CHANGE, MAY_GROW)]
    if key == "resume" and refused:
        expected = f"beside resume=... expected nothing but {MAY_GROW}=...; rerun=... takes other settings."
        raise UserError(f"{' '.join(refused)}: {expected}")
    groups = [
        each for each in others if (PROJECT / "conf" / each.partition("=")[0].lstrip("+~")).is_dir() and "=" in each
    ]
    if groups:
        expected = "beside rerun=... expected single values, such as optimizer.lr=1e-3, since groups were composed when"
        way = f"Take the command from {folder}/provenance.json, and change that."
        raise UserError(f"{' '.join(groups)}: {expected} the run began. {way}")
    quoted = str(folder).replace("'", "\\'")
    place = f"hydra.run.dir='{quoted}'" if key == "resume" else f"repeats='{quoted}'"
    return [
        f"--config-path={folder}",
        "--config-name=config",
        *(place if each == named[0] else each for each in arguments),
    ]


def check_version(config: dict, folder: Path) -> None:
    """Raises UserError if a run's config was written by a version with other names."""
    if "overrides" not in config:
        way = "Begin it again in another folder, or use the version that wrote it."
        raise UserError(f"{folder}: a run of an older version, whose settings have other names. {way}")
