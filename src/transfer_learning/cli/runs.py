"""The run that a checkpoint belongs to, and its own data."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from transfer_learning.cli.arguments import check_version
from transfer_learning.cli.build import build_data
from transfer_learning.data.images import Images
from transfer_learning.runs.folder import RunFolder
from transfer_learning.utilities.errors import UserError


def folder_of(checkpoint: Path) -> Path:
    """The folder of a checkpoint's run. Raises UserError if it is not in one."""
    folder = checkpoint.absolute().parent.parent
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{checkpoint}: not in the folder of a run, which has config.yaml and checkpoints/.")
    return folder


def own_images(folder: Path) -> dict[str, Images]:
    """The images of each split of a run, as its config describes them: "train", "val", "test".

    Raises UserError if they are not those that the run was trained with.
    """
    run = RunFolder(folder)
    config = run.config() or {}
    check_version(config, folder)
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    data = build_data(cfg)
    data.setup()
    run.check_images(data)
    return {split: data.images.take(indices) for split, indices in data.splits.items()}
