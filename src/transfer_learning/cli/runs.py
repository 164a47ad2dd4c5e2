"""The run that a checkpoint belongs to, and its own data."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from transfer_learning.cli.build import build_data
from transfer_learning.cli.errors import name_keys
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.images import Images
from transfer_learning.runs.folder import RunFolder
from transfer_learning.runs.split_table import digests_of_split
from transfer_learning.utilities.errors import UserError


def folder_of(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run. Raises UserError if it is not in one."""
    folder = checkpoint.absolute().parent.parent
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{checkpoint}: not in the folder of a run, which has config.yaml and checkpoints/.")
    return folder


def own_config(folder: Path) -> DictConfig:
    """The config of a run. Raises UserError if there is none, or if it is damaged."""
    config = RunFolder(folder).config()
    if config is None:
        raise UserError(f"{folder}: not the folder of a run, which has config.yaml.")
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    return cfg


def own_data(folder: Path) -> ImageDataModule:
    """The data of a run, set up, as its config describes them.

    Raises UserError if they are not those that the run was trained with.
    """
    cfg = own_config(folder)
    with name_keys(cfg):
        data = build_data(cfg)
        data.setup()
    RunFolder(folder).check_images(data)
    return data


def training_images(checkpoint: Path, images: Images) -> int | None:
    """How many of other images are byte-identical to training images of the checkpoint's run; None if not known."""
    digests = digests_of_split(checkpoint.absolute().parent.parent / "split.csv", "train")
    return None if digests is None else sum(digest in digests for digest in images.digests)


def training_note(count: int | None, total: int) -> str:
    """A line about what `training_images` counts among `total` images, "" if it is 0."""
    if count is None:
        return "without the split.csv of the run it is not known whether these images trained the model\n"
    return f"training images of this run: {count:,} of {total:,}, so the accuracy is too high here\n" if count else ""


def own_images(folder: Path) -> dict[str, Images]:
    """The images of each split of a run: "train", "val", "test". Raises UserError as `own_data` does."""
    data = own_data(folder)
    return {split: data.images.take(indices) for split, indices in data.splits.items()}
