from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from transfer_learning.callbacks.run_end import improves, monitoring_checkpoint


def test_epochs_that_improve_are_those_that_the_checkpoint_saves(tmp_path, small_data, small_model, quiet_trainer):
    asked, saved = [], []

    class Noted(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            saved.append(trainer.current_epoch)
            super()._save_checkpoint(trainer, filepath)

    class Asking(ModelCheckpoint):
        def on_validation_end(self, trainer, model):
            if improves(trainer):
                asked.append(trainer.current_epoch)

        def on_train_epoch_end(self, trainer, model): ...

    asking = Asking(tmp_path / "asking", monitor=None)
    best = Noted(tmp_path, monitor="val/loss", mode="min", enable_version_counter=False)
    trainer = quiet_trainer(max_epochs=8, enable_checkpointing=True, callbacks=[asking, best])
    assert monitoring_checkpoint(trainer) is best
    trainer.fit(small_model(learning_rate=0.05), datamodule=small_data())
    assert asked == saved and 1 < len(saved) < 8


@pytest.mark.parametrize(("mode", "value", "expected"), [("max", 0.5, False), ("max", 0.6, True), ("min", 0.4, True)])
def test_equal_values_do_not_improve(mode, value, expected):
    checkpoint = SimpleNamespace(monitor="val/acc", mode=mode, best_model_score=torch.tensor(0.5))
    trainer = SimpleNamespace(checkpoint_callbacks=[checkpoint], callback_metrics={"val/acc": torch.tensor(value)})
    assert improves(trainer) is expected


def test_without_a_monitoring_checkpoint_each_epoch_is_the_best():
    assert improves(SimpleNamespace(checkpoint_callbacks=[SimpleNamespace(monitor=None)], callback_metrics={}))
