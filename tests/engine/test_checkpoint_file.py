import threading

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from transfer_learning.engine.checkpoint_file import BackgroundWriter, CheckpointFile
from transfer_learning.utilities.errors import UserError


def test_failed_write_keeps_the_file_before_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckpointFile().save_checkpoint({"epoch": 1, "state_dict": {"weight": torch.arange(5)}}, path)

    def full_disk(checkpoint, file):
        file.write(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match="last.ckpt: .*No space left on device.*choose another folder"):
        CheckpointFile().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_remembered_checkpoints_move_with_their_folder(tmp_path, small_data, small_model, quiet_trainer):
    best = ModelCheckpoint(tmp_path / "a", "best", monitor="val/loss", mode="min")
    last = ModelCheckpoint(tmp_path / "a", "last", save_on_train_epoch_end=True)
    trainer = quiet_trainer(max_epochs=1, enable_checkpointing=True, callbacks=[best, last], plugins=[CheckpointFile()])
    trainer.fit(small_model(), datamodule=small_data())
    (tmp_path / "a").rename(tmp_path / "b")
    checkpoint = CheckpointFile().load_checkpoint(tmp_path / "b" / "last.ckpt")
    state = next(state for state in checkpoint["callbacks"].values() if state.get("monitor") == "val/loss")
    expected = str(tmp_path / "b" / "best.ckpt")
    assert state["best_model_path"] == state["kth_best_model_path"] == expected
    assert list(state["best_k_models"]) == [expected] and state["dirpath"] == str(tmp_path / "b")


class SlowFile(CheckpointFile):
    """Each file waits for `go`; `written` has their names."""

    def __init__(self):
        super().__init__()
        self.go, self.written = threading.Event(), []

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        assert self.go.wait(20)
        super().save_checkpoint(checkpoint, path)
        self.written.append(path.name)


def test_a_file_has_the_values_of_its_step_and_no_step_overtakes_another(tmp_path):
    slow, weight, rows = SlowFile(), torch.arange(5.0), [1]
    writer = BackgroundWriter(slow)
    for name in ("best", "last"):
        writer.save_checkpoint({"global_step": 3, "weight": weight, "rows": rows}, tmp_path / name)
    weight += 100
    rows.append(2)
    assert slow.written == []
    later = threading.Timer(0.2, slow.go.set)
    later.start()
    writer.save_checkpoint({"global_step": 4, "weight": weight, "rows": rows}, tmp_path / "last of 4")
    assert {"best", "last"} <= set(slow.written)  # before the copy of step 4
    writer.teardown()
    for name, offset, expected in (("best", 0, [1]), ("last", 0, [1]), ("last of 4", 100, [1, 2])):
        saved = torch.load(tmp_path / name)
        assert torch.equal(saved["weight"], torch.arange(5.0) + offset) and saved["rows"] == expected
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("when", ["at the next step", "at the end", "when it is loaded"])
def test_a_failure_in_the_background_is_raised_once(tmp_path, when):
    (tmp_path / "file").write_text("")
    writer, path = BackgroundWriter(CheckpointFile()), tmp_path / "file" / "last.ckpt"
    with pytest.raises(UserError, match="last.ckpt: .*choose another folder"):
        writer.save_checkpoint({"global_step": 1}, path)
        if when == "at the next step":
            writer.save_checkpoint({"global_step": 2}, path)
        elif when == "at the end":
            writer.teardown()
        else:
            writer.load_checkpoint(path)
    writer.teardown()


def test_after_a_failure_no_other_file_of_the_step_is_written(tmp_path):
    """last.ckpt would name a best.ckpt that is not there."""

    class Failing(CheckpointFile):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            if path.name == "best.ckpt":
                raise OSError("quota")
            super().save_checkpoint(checkpoint, path)

    writer = BackgroundWriter(Failing())
    for name in ("best.ckpt", "last.ckpt"):
        writer.save_checkpoint({"global_step": 3}, tmp_path / name)
    with pytest.raises(OSError, match="quota"):
        writer.teardown()
    assert not (tmp_path / "last.ckpt").exists()


def test_weights_of_a_fit_with_files_in_the_background_are_those_without(
    tmp_path, small_data, small_model, quiet_trainer
):
    saved = []
    for name, plugin in (("a", CheckpointFile()), ("b", BackgroundWriter(CheckpointFile()))):
        callbacks = [
            ModelCheckpoint(tmp_path / name, "best", monitor="val/loss", save_weights_only=True),
            ModelCheckpoint(tmp_path / name, "{epoch}", save_top_k=-1),
        ]
        trainer = quiet_trainer(max_epochs=4, enable_checkpointing=True, callbacks=callbacks, plugins=[plugin])
        trainer.fit(small_model(dropout=0.2), datamodule=small_data(augment=True))
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        saved.append({file: torch.load(tmp_path / name / file)["state_dict"] for file in files})
    assert list(saved[0]) == list(saved[1]) and len(saved[0]) == 5
    for file, expected in saved[0].items():
        assert all(torch.equal(saved[1][file][key], value) for key, value in expected.items()), file
