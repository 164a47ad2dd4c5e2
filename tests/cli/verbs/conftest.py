"""Fixtures that tests of the verbs share."""

import shutil

import pytest
import pytorch_lightning as pl
import torch

from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine.classifier import Classifier
from transfer_learning.models.cnn import CNN


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a small run, as far as verbs read it."""
    torch.manual_seed(0)
    network = CNN(2, 32, channels=[4, 8], dense=[16], dropout=0.0)
    model = Classifier(network, ("cat", "dog"), Preprocessing(32, resize="crop"))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(model)
    model.trainer = trainer
    folder = tmp_path_factory.mktemp("runs") / "run"
    trainer.save_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True)
    (folder / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def run_folder(small_run, tmp_path):
    """A copy of it, which the test may change."""
    return shutil.copytree(small_run, tmp_path / "run")
