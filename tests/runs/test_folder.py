import csv
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer_learning.engine.checkpoint import KEYS
from transfer_learning.runs.folder import RunFolder
from transfer_learning.runs.metrics import read_metrics
from transfer_learning.utilities.errors import ArgumentError, UserError

CONFIG = {"seed": 0, "data": {"root": None, "sizes": [1, 2]}, "optimizer": {"lr": 1e-7}, "trainer": {"max_epochs": 5}}
EXTRA = {"overrides": ["seed=0"], "hydra": {"run": {"dir": "somewhere"}}}
EPOCHS = "trainer.max_epochs"
CHECKPOINT = {"epoch": 4, "model": {key: {} for key in KEYS}, "state_dict": {}}
METRICS = {
    "epochs": 5,
    "monitor": "val/acc",
    "monitor_mode": "max",
    "monitor_best": 0.5,
    "test/acc": None,
    "seconds": 1,
}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def changed(**values):
    """The config with other values; `optimizer__lr` is the key optimizer.lr."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


def leave(folder, *names):
    """Files of a run with results."""
    for name in names:
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        if path == folder.last:
            torch.save(CHECKPOINT | {"run": folder.about}, path)
        else:
            path.write_text(json.dumps(METRICS))


def test_config_is_read_as_it_was_written(folder, tmp_path):
    assert folder.config() is None
    config = CONFIG | {
        "output": "${hydra:runtime.output_dir}/x",  # stays an interpolation
        "text": "1e-4",
        "none": "null",
        "yes": "on",
        "number": 1e-4,
        "nothing": {},
        "far": f"{tmp_path}2/x",
    }
    for _ in range(2):
        folder.claim(config, EXTRA)
        assert folder.config() == config | EXTRA
        leave(folder, "metrics.json")


@pytest.mark.parametrize("results", ["metrics.json", "checkpoints/last.ckpt"])
def test_results_of_another_config_are_refused_with_the_difference(folder, results):
    folder.claim(CONFIG, EXTRA)
    leave(folder, results)
    folder.claim(CONFIG, EXTRA)
    before = (folder.path / "config.yaml").read_bytes()
    other = changed(optimizer__lr=0.1, data__sizes=[1], data__new=True)
    expected = r"data.new was absent, is True; data.sizes was \[1, 2\], is \[1\]; optimizer.lr was 1e-07, is 0.1\. They"
    with pytest.raises(UserError, match=expected):
        folder.claim(other, EXTRA, given=["data.new"])
    assert (folder.path / "config.yaml").read_bytes() == before and (folder.path / results).exists()
    (folder.path / results).unlink()
    folder.claim(other, EXTRA)  # there is nothing to lose
    assert folder.config() == other | EXTRA


def test_many_differences_are_counted(folder):
    before, now = ({"data": dict.fromkeys("abcdefghij", value)} for value in (1, 2))
    folder.claim(before, EXTRA)
    leave(folder, "metrics.json")
    with pytest.raises(UserError, match=r"data.a was 1, is 2; .*data.h was 1, is 2 and 2 more\. They"):
        folder.claim(now, EXTRA)


def test_key_that_the_program_gained_later_is_accepted_unless_it_is_given(folder, caplog):
    folder.claim(CONFIG, EXTRA)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    later = changed(data__new=True)
    for given_keys in (["data.new"], ["data"]):
        with pytest.raises(UserError, match="another config: data.new was absent, is True. They"):
            folder.claim(later, EXTRA, given=given_keys)
    with caplog.at_level("INFO"):
        folder.claim(later, EXTRA, given=["seed", "data.sizes"])
    assert "keys that its config did not have: data.new=True" in caplog.text
    assert folder.config() == CONFIG | EXTRA  # that of the training
    (folder.path / "metrics.json").unlink()
    assert not folder.claim(later, EXTRA)
    folder.begin_training()
    assert folder.config() == later | EXTRA
    with pytest.raises(UserError, match="data.new was True, is absent"):
        folder.claim(CONFIG, EXTRA)


def test_files_of_others_are_not_overwritten(folder):
    for name in ("split.csv", "provenance.json"):
        leave(folder, name)
        with pytest.raises(UserError, match=f"no run's folder, but it has {name}, which a run would overwrite"):
            folder.claim(CONFIG, EXTRA)
        (folder.path / name).unlink()
    assert not folder.claim(CONFIG, EXTRA) and not folder.claim(CONFIG, EXTRA)


def test_extra_keys_are_not_compared(folder):
    folder.claim(CONFIG, EXTRA)
    leave(folder, "metrics.json")
    folder.claim(CONFIG, {"overrides": ["other"], "hydra": {}})
    assert folder.config() == CONFIG | EXTRA


def test_results_without_a_config_are_not_overwritten(folder):
    leave(folder, "checkpoints/last.ckpt")
    with pytest.raises(UserError, match="seed was absent"):
        folder.claim(CONFIG, EXTRA)


def test_only_more_epochs_extend_a_run_and_only_if_it_may_be_extended(folder):
    folder.claim(CONFIG, EXTRA)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    for config, may_extend in (
        (changed(trainer__max_epochs=6), False),
        (changed(trainer__max_epochs=6, optimizer__lr=1), True),
    ):
        with pytest.raises(UserError, match="trainer.max_epochs was 5"):
            folder.claim(config, EXTRA, epochs_key=EPOCHS, may_extend=may_extend)
        assert read_metrics(folder.path)
    assert not folder.claim(changed(trainer__max_epochs=6), EXTRA, epochs_key=EPOCHS, may_extend=True)
    assert read_metrics(folder.path) and folder.config() == CONFIG | EXTRA  # it may still fail
    folder.begin_training()
    assert (
        read_metrics(folder.path) is None and folder.last.exists() and (folder.path / "metrics-5-epochs.json").exists()
    )
    assert folder.config() == changed(trainer__max_epochs=6) | EXTRA


@pytest.mark.parametrize("epochs", [None, "", "6", 6.5, True, 0, -1])
def test_a_number_of_epochs_that_is_none_is_named_and_not_a_difference(folder, epochs):
    folder.claim(changed(trainer__max_epochs=2), EXTRA)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    with pytest.raises(ArgumentError, match="expected a whole number, 1 or more .*it was 2") as error:
        folder.claim(changed(trainer__max_epochs=epochs), EXTRA, epochs_key=EPOCHS, may_extend=True)
    assert (error.value.argument, error.value.value) == ("max_epochs", epochs)


@pytest.mark.parametrize(
    "left, max_epochs, reason",
    [
        (["metrics.json"], 5, r"more epochs need .*last\.ckpt, which is missing"),
        (["metrics.json", "checkpoints/last.ckpt"], 30, "it stopped by itself after 5 epochs, so it trains no more"),
        (["metrics.json", "checkpoints/last.ckpt"], -1, "it stopped by itself after 5 epochs"),
    ],
)
def test_a_finished_run_that_cannot_train_on_is_not_extended(folder, left, max_epochs, reason):
    config = changed(trainer__max_epochs=max_epochs)
    folder.claim(config, EXTRA)
    leave(folder, *left)
    with pytest.raises(UserError, match=reason):
        folder.claim(changed(trainer__max_epochs=60), EXTRA, epochs_key=EPOCHS, may_extend=True)
    assert read_metrics(folder.path) and folder.config() == config | EXTRA
    assert folder.claim(config, EXTRA, epochs_key=EPOCHS, may_extend=True)  # and it counts as finished


def test_a_run_that_stopped_early_in_its_last_epoch_is_not_extended(folder):
    config = changed(trainer__max_epochs=5)
    folder.claim(config, EXTRA)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    torch.save(torch.load(folder.last) | {"history": {"stopped": True}}, folder.last)
    with pytest.raises(UserError, match="it stopped by itself after 5 epochs"):
        folder.claim(changed(trainer__max_epochs=60), EXTRA, epochs_key=EPOCHS, may_extend=True)
    assert read_metrics(folder.path)["epochs"] == 5 and folder.config() == config | EXTRA


@pytest.mark.parametrize("may_extend", [True, False])
def test_a_finished_run_with_more_epochs_than_asked_for_is_finished_and_keeps_its_config(folder, may_extend):
    folder.claim(CONFIG, EXTRA)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    assert folder.claim(changed(trainer__max_epochs=3), EXTRA, epochs_key=EPOCHS, may_extend=may_extend)
    assert folder.config() == CONFIG | EXTRA


@pytest.mark.parametrize("epochs, reason", [(5, None), (6, None), (4, "trainer.max_epochs=4: 5 epochs are done")])
def test_an_unfinished_run_takes_any_number_of_epochs_that_are_not_done_yet(folder, epochs, reason):
    """So a number with a zero too many can be taken back."""
    folder.claim(changed(trainer__max_epochs=600), EXTRA, epochs_key=EPOCHS)
    leave(folder, "checkpoints/last.ckpt")
    if reason:
        with pytest.raises(UserError, match=reason):
            folder.claim(changed(trainer__max_epochs=epochs), EXTRA, epochs_key=EPOCHS)
    else:
        assert not folder.claim(changed(trainer__max_epochs=epochs), EXTRA, epochs_key=EPOCHS)
        folder.begin_training()
        folder.begin_training()  # at the end once more
        assert folder.config() == changed(trainer__max_epochs=epochs) | EXTRA


def save(folder, name="last", **about):
    """A checkpoint that says what it belongs to."""
    path = folder.last.with_name(f"{name}.ckpt")
    path.parent.mkdir(exist_ok=True)
    torch.save(CHECKPOINT | {"run": folder.about | about}, path)


def test_a_config_that_was_edited_is_compared_with_that_of_the_checkpoint(folder):
    folder.claim(CONFIG, EXTRA)
    save(folder)
    edited = changed(optimizer__lr=0.5)
    (folder.path / "config.yaml").write_text(json.dumps(edited | EXTRA))
    for command in (edited, CONFIG):
        with pytest.raises(UserError, match=r"optimizer\.lr was (1e-07, is 0\.5|0\.5, is 1e-07)"):
            folder.claim(command, EXTRA)


def test_a_checkpoint_that_names_no_run_is_refused(folder):
    """As of a Trainer without this project's folder of a run."""
    folder.claim(CONFIG, EXTRA)
    save(folder)
    saved = torch.load(folder.last, weights_only=True)
    del saved["run"]
    torch.save(saved, folder.last)
    with pytest.raises(UserError, match=r"last\.ckpt: written by another program, which names no run\. Move it away"):
        RunFolder(folder.path).claim(CONFIG, EXTRA)


def test_a_run_keeps_its_id_and_checkpoints_of_two_runs_are_refused(folder):
    folder.claim(CONFIG, EXTRA)
    save(folder)
    save(folder, "best")
    other = RunFolder(folder.path)
    other.claim(CONFIG, EXTRA)
    assert other.about == folder.about
    save(folder, "best", id="another")
    with pytest.raises(UserError, match=r"best\.ckpt and last\.ckpt beside it are of different runs"):
        other.claim(CONFIG, EXTRA)


@pytest.mark.parametrize("again", [False, True])
def test_a_process_whose_folder_was_removed_or_made_again_stops_and_leaves_no_file_there(folder, again):
    with pytest.raises(UserError, match="the folder was removed or replaced"), folder.locked():
        folder.check_ours()
        shutil.rmtree(folder.path)
        if again:
            folder.path.mkdir()
            (folder.path / ".lock").touch()
        folder.check_ours()
    assert [path.name for path in folder.path.glob("*")] == [".lock"] * again


def test_keys_that_may_change_are_updated_and_metrics_stay(folder):
    folder.claim(changed(data__cache_dir="/here"), EXTRA)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    with pytest.raises(UserError, match="data.cache_dir was /here, is /there"):
        folder.claim(changed(data__cache_dir="/there"), EXTRA)
    folder.claim(changed(data__cache_dir="/there"), EXTRA, may_change=["data.cache_dir"])
    assert folder.config()["data"]["cache_dir"] == "/there" and read_metrics(folder.path)


def test_damaged_config_is_named(folder):
    for text in ("{", "a: ${", "- 1", "seed: 0\n"):
        (folder.path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="config.yaml: not the config of a run, or damaged"):
            folder.config()


def test_one_process_at_a_time_and_the_lock_ends_with_the_process(folder):
    script = (
        "import sys, time; from filelock import FileLock\n"  # much of the package takes seconds to import
        "with FileLock(sys.argv[1]): print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(folder.path / ".lock")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="another run is using this folder"), folder.locked():
        pass
    assert not (folder.path / "FAILED").exists()  # the other run has not failed
    other.kill()
    other.wait()
    other.stdout.close()
    with folder.locked():
        pass


def test_partial_checkpoints_are_removed_and_nothing_else(folder):
    leave(folder, "checkpoints/best.ckpt.partial", "checkpoints/best.ckpt", "thesis.partial")
    with folder.locked():
        pass
    assert {path.name for path in folder.path.rglob("*")} >= {"best.ckpt", "thesis.partial"}
    assert not list(folder.path.rglob("*.ckpt.partial"))


def test_failure_leaves_its_reason_until_the_next_attempt(folder):
    with pytest.raises(UserError), folder.locked():
        raise UserError("what it was\nsecond line")
    assert (folder.path / "FAILED").read_text() == "what it was second line\n"
    with pytest.raises(KeyboardInterrupt), folder.locked():
        assert not (folder.path / "FAILED").exists()
        raise KeyboardInterrupt  # an interrupt is no failure
    assert not (folder.path / "FAILED").exists()


def data_of(names, digests):
    """Images in two splits, of two classes in turn."""
    labels = np.arange(len(names)) % 2
    images, halves = SimpleNamespace(names=names, digests=digests), np.array_split(np.arange(len(names)), 2)
    splits = dict(zip(("train", "test"), halves))
    return SimpleNamespace(images=images, labels=labels, class_names=("a", "b"), splits=splits)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=6, unique=True))
def test_split_csv_lists_every_file_whatever_its_name(folder, names):
    data = data_of(names, [f"{index:064x}" for index in range(len(names))])
    folder.record(data, {})
    with open(folder.path / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == names
    assert [row["sha256"] for row in rows] == data.images.digests
    assert [row["class"] for row in rows] == ["ab"[index % 2] for index in range(len(names))]
    assert [row["split"] for row in rows] == [split for split, indices in data.splits.items() for _ in indices]


def test_resumed_run_needs_the_images_that_it_began_with(folder):
    names, digests = list("wxyz"), list("0123")
    folder.record(data_of(names, digests), {"number": 1})
    leave(folder, "checkpoints/last.ckpt")
    folder.record(data_of(["elsewhere/" + name for name in names], digests), {"number": 2})  # names may change
    assert json.loads((folder.path / "provenance.json").read_text()) == [{"number": 1}, {"number": 2}]
    classes_exchanged = data_of(names, digests)
    classes_exchanged.class_names = ("b", "a")
    for others in (data_of(names, list("0124")), data_of(names, list("0213")), classes_exchanged):
        with pytest.raises(UserError, match="split.csv: this run began with other images"):
            folder.record(others, {"number": 3})
    folder.last.unlink()
    folder.record(data_of(names, list("0124")), {"number": 3})  # from the beginning


def test_a_run_with_a_checkpoint_needs_its_split_csv(folder):
    data = data_of(list("wxyz"), list("0123"))
    leave(folder, "checkpoints/last.ckpt")
    for check in (folder.check_images, lambda data: folder.record(data, {})):
        with pytest.raises(UserError, match=r"split\.csv: missing, so this run's images cannot be checked"):
            check(data)
    assert not (folder.path / "split.csv").exists() and not (folder.path / "provenance.json").exists()
    folder.last.unlink()
    folder.record(data, {})  # from the beginning
    folder.check_images(data)


@pytest.mark.parametrize(
    "digests, message",
    [
        (None, "{other}/split.csv: missing, so whether the run that is repeated had the same images is not known"),
        ("0124", "{other}: the run that is repeated had other images (2 differ)"),
        ("0123", ""),
    ],
)
def test_a_repeated_run_with_other_or_unknown_images_is_named(folder, tmp_path, caplog, digests, message):
    other = RunFolder(tmp_path / "other")
    other.path.mkdir()
    if digests:
        other.record(data_of(list("wxyz"), list(digests)), {})
    with caplog.at_level("INFO"):
        folder.record(data_of(list("wxyz"), list("0123")), {}, repeats=str(other.path))
    assert caplog.messages == ([message.format(other=other.path)] if message else [])
