"""Where the project's conf/ is, what its groups offer, and which keys have a meaning for runs."""

from pathlib import Path

from transfer_learning.utilities.errors import UserError

PROJECT = Path(__file__).resolve().parents[3]
MAY_CHANGE = ("data.cache_dir", "data.download_to")  # keys that may change on resume
MAY_GROW = "trainer.max_epochs"  # a larger number extends a run
# When a run began, its name, image size, learning rate ... followed these keys.
FOLLOWED = ("model.backbone", "model.unfreeze", "model.weights", "data.augment", "trainer.gradient_clip_val")
LIST_GROUPS = ("logger", "callbacks", "metrics", "data/augmentation")  # of which several can be chosen
REPLICATES = ("data.fold", "seed")  # runs that differ in these alone are repetitions


def check_installation() -> None:
    """Raises UserError if the package was installed as a copy, away from the project's conf/ and outputs/."""
    if not (PROJECT / "conf").is_dir():
        raise UserError(f"there is no {PROJECT / 'conf'}: type `pip install -e .` (with -e) in the project's folder.")


def how_to_choose(group: str, name: str) -> str:
    """What to type so that a group whose members are a list has one more."""
    return f"{group}=[...,{name}] chooses it, with all others that you want in the place of the dots"


def options(group: str) -> list[str]:
    """The names that can be chosen for a group of conf/, such as `data/split`; none if there is no such group."""
    return sorted(path.stem for path in (PROJECT / "conf" / group).glob("[!_]*.yaml"))
