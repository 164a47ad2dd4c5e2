"""What a command does with the folder of a run that has begun or finished."""

import csv
import json
import shutil

import pytest
from omegaconf import OmegaConf

SIZES = ["data.image_size=32", "data.train_per_class=9", "data.val_per_class=4", "data.test_per_class=4"]
DATA = ["data=cartoons", *SIZES, "data.batch_size=6", "trainer=cpu", "callbacks=[checkpoints]", "logger=none"]
TINY = [*DATA, "model.channels=[4]", "model.dense=[8]"]


@pytest.fixture
def train(tmp_path, in_process):
    """train(*arguments) -> (exit code, output) of a run in tmp_path/run."""
    where = [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache"]
    return lambda *arguments: in_process(*TINY, *where, *arguments)


def epochs_of(folder):
    return json.loads((folder / "metrics.json").read_text())["epochs"]


def test_an_extension_that_fails_before_it_trains_changes_nothing(train, tmp_path, monkeypatch):
    assert train("trainer.max_epochs=1")[0] == 0
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("metrics.json", "config.yaml")}
    with monkeypatch.context() as patch:
        patch.setattr("transfer_learning.data.datamodule.ImageDataModule.setup", lambda *_: 1 / 0)
        assert train("trainer.max_epochs=3")[0] == 1
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    code, output = train("trainer.max_epochs=1")
    assert code == 0 and "finished already, val/acc" in output
    assert train("trainer.max_epochs=2")[0] == 0 and epochs_of(tmp_path / "run") == 2
    code, output = train("trainer.max_epochs=1")  # the command of before
    assert code == 0 and "finished already after 2 epochs, val/acc" in output and epochs_of(tmp_path / "run") == 2


@pytest.mark.parametrize("typed", ["photos", "link"])
def test_the_folder_of_the_images_is_not_that_of_the_run(in_process, write_image, tmp_path, typed):
    for seed in range(12):
        write_image(tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.png", seed)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    place = [f"data.root={tmp_path}/photos", f"hydra.run.dir={tmp_path}/{typed}"]
    code, output = in_process("data=image_folder", *place, f"data.cache_dir={tmp_path}/cache")
    assert code == 1 and output.splitlines()[-1] == (
        f"hydra.run.dir={tmp_path}/{typed}: the folder of the images, data.root. "
        "Choose another one, or leave hydra.run.dir out."
    )
    assert not (tmp_path / "photos" / "config.yaml").exists()


def test_too_many_epochs_can_be_taken_back(train, tmp_path, in_process):
    assert train("trainer.max_epochs=2")[0] == 0
    (tmp_path / "run" / "metrics.json").unlink()  # as if killed
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 2", "max_epochs: 20000"))
    code, output = in_process(f"resume={tmp_path}/run", "trainer.max_epochs=1")
    assert code == 1 and "trainer.max_epochs=1: 2 epochs are done; expected at least as many" in output
    code, output = in_process(f"resume={tmp_path}/run", "trainer.max_epochs=3")
    assert code == 0 and "epoch   3/3" in output and "max_epochs: 3" in config.read_text()


def test_an_edited_config_is_compared_with_that_of_the_checkpoint(train, tmp_path, in_process):
    assert train("trainer.max_epochs=1")[0] == 0
    (tmp_path / "run" / "metrics.json").unlink()
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.001", "lr: 0.5"))
    code, output = in_process(f"resume={tmp_path}/run")
    assert code == 1 and "has results of another config: optimizer.lr was 0.001, is 0.5" in output, output


def test_the_folder_of_a_running_training_that_was_made_again_is_left_alone(train, tmp_path, monkeypatch):
    from transfer_learning.engine.classifier import Classifier

    validate, folder = Classifier.on_validation_epoch_end, tmp_path / "run"

    def replace_folder(self):
        shutil.rmtree(folder)
        (folder / "checkpoints").mkdir(parents=True)
        validate(self)

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", replace_folder)
    code, output = train("trainer.max_epochs=1")
    assert code == 1 and "the folder was removed or replaced while this run was using it" in output
    assert not [path for path in folder.rglob("*") if path.is_file() and path.name != "train.log"]


def test_a_run_of_single_batches_does_not_count(train, tmp_path):
    code, output = train("+trainer.fast_dev_run=true", "trainer.max_epochs=1")
    assert code == 0 and "fast_dev_run: everything works" in output
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert train("trainer.max_epochs=1")[0] == 0 and epochs_of(tmp_path / "run") == 1


def test_what_cannot_be_extended_is_not_said_to_be(train, tmp_path):
    early = ["callbacks=[checkpoints,early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=0.0"]
    assert train("trainer.max_epochs=5", *early)[0] == 0 and epochs_of(tmp_path / "run") == 2
    before = (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes()
    code, output = train("trainer.max_epochs=5", *early)
    assert code == 0 and "finished already, val/acc" in output and "extends it" not in output
    code, output = train("trainer.max_epochs=9", *early)
    assert code == 1 and "it stopped by itself after 2 epochs, so it trains no more" in output
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes() == before
    assert epochs_of(tmp_path / "run") == 2


def test_without_the_last_checkpoint_no_training_begins_anew(train, tmp_path):
    assert train("trainer.max_epochs=1")[0] == 0
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    before = (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes()
    code, output = train("trainer.max_epochs=1")
    assert code == 0 and "finished already, val/acc" in output and "extends it" not in output
    code, output = train("trainer.max_epochs=3")
    assert code == 1 and "last.ckpt, which is missing. Restore it, or use another folder." in output
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes() == before


def test_an_interrupted_run_says_whether_an_epoch_was_saved(train, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    again = f"python train.py resume={tmp_path}/run"
    with monkeypatch.context() as patch:
        patch.setattr("transfer_learning.data.datamodule.ImageDataModule.setup", interrupt)
        code, output = train("trainer.max_epochs=1")
    assert code == 130 and f"interrupted; no epoch was saved. To begin again: {again}" in output
    assert train("trainer.max_epochs=1")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("transfer_learning.data.datamodule.ImageDataModule.setup", interrupt)
        code, output = train("trainer.max_epochs=2")
    assert code == 130 and f"interrupted; the epochs that had ended are kept. To go on: {again}" in output


def test_an_attempt_that_saved_nothing_does_not_set_the_precision(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("transfer_learning.data.datamodule.ImageDataModule.setup", lambda *_: 1 / 0)
        assert train("trainer.max_epochs=1", "trainer.precision=64-true")[0] == 1
    assert train("trainer.max_epochs=1")[0] == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["precision"] != "64-true"
    assert train("trainer.max_epochs=2", "trainer.precision=auto")[0] == 0


def test_a_job_of_a_sweep_that_was_extended_counts_as_finished(in_process, tmp_path):
    sweep = ["-m", *TINY, f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache", "seed=0,1"]
    assert in_process(*sweep, "trainer.max_epochs=1")[0] == 0
    extended = next((tmp_path / "sweep").glob("*/metrics.json")).parent
    assert in_process(f"resume={extended}", "trainer.max_epochs=2")[0] == 0
    code, output = in_process(*sweep, "trainer.max_epochs=1")
    assert code == 0 and "2 of 2 jobs" in output and epochs_of(extended) == 2, output
    overrides = OmegaConf.load(extended / "config.yaml").overrides
    assert set(sweep[1:-3]) < set(overrides) and overrides[-1] == "trainer.max_epochs=2"  # no key twice
    assert len({each.partition("=")[0] for each in overrides}) == len(overrides)
    with open(tmp_path / "sweep" / "leaderboard.csv", newline="") as file:
        assert sorted(row["seed"] for row in csv.DictReader(file)) == ["0", "1"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["model=vgg16_frozen", "model.weights=none.pth"], "none.pth: no such file"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: expected at least one epoch"),
        (["trainer.limit_val_batches=0.01"], "trainer.limit_val_batches=0.01: it leaves none of 2 batches"),
        (["scheduler=cosine", "trainer.max_epochs=-1"], "trainer.max_epochs=-1: a learning-rate schedule needs"),
        (["data.exclude=none.csv"], "none.csv: not readable as a table"),
    ],
)
def test_what_can_be_known_before_is_refused_before_images_are_decoded(in_process, tmp_path, arguments, message):
    where = [f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache"]
    code, output = in_process(*DATA, *where, *arguments)
    assert code == 1 and message in output, output
    assert not list((tmp_path / "cache").glob("pixels-*"))
