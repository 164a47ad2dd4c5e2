"""This project, or another checkout of it."""

import os
import sys
from pathlib import Path

from turns import turn

from contenders.inputs import PROJECT


def train(overrides: list[str], folder: str, checkout: str = str(PROJECT)) -> None:
    """`train.py` of a checkout, from the start of one epoch to the start of the next."""
    sys.path[:0] = [checkout, f"{checkout}/src"]
    import train as command
    import transfer_learning

    if not Path(transfer_learning.__file__).is_relative_to(checkout):
        sys.exit(f"{transfer_learning.__file__} was imported instead of the package in {checkout}")

    sys.argv = [
        "train.py",
        f"--config-path={checkout}/conf",
        *overrides,
        "+callbacks.turns._target_=turns.turn_each_epoch",
        "trainer.max_epochs=100000",
        f"hydra.run.dir={folder}/run-{os.getpid()}",
    ]
    command.main()


def decode(originals: str, folder: str) -> None:
    from transfer_learning.data.digests import FileDigests
    from transfer_learning.data.preprocessing import Preprocessing, decode
    from transfer_learning.data.sources.folder import Folder

    images = Folder(originals).list_images(FileDigests())
    while True:
        turn()
        decode(images, Preprocessing(150), range(len(images.names)))
