"""What a user types: mistakes, `resume=RUN` and `rerun=RUN`, and what may be wrong with RUN."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train

SMALL = (
    "data=cartoons data.image_size=32 data.train_per_class=20 data.val_per_class=8 data.test_per_class=8 trainer=cpu"
)
TINY = (
    f"{SMALL} data.augment=true model=regularised_cnn model.channels=[4,8] model.dense=[16] optimizer.lr=1e-3 trainer.deterministic=true"
).split()


@pytest.fixture
def finished(tmp_path, in_process):
    """The folder of a run of two epochs."""
    code, output = in_process(
        *TINY, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache"
    )
    assert code == 0, output
    return tmp_path / "run"


def metrics(folder):
    return {
        key: value for key, value in json.loads((folder / "metrics.json").read_text()).items() if "seconds" not in key
    }


def contents(folder):
    """Of all files but the log, the lock and the mark of the last failure."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("train.log", ".lock", "FAILED")]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_a_finished_run_says_so(finished, in_process):
    before = contents(finished)
    code, output = in_process(f"resume={finished}")
    assert code == 0 and f"{finished}: finished already" in output and contents(finished) == before


def test_a_run_reached_through_a_link_keeps_its_best_epoch(finished, in_process, tmp_path):
    """ModelCheckpoint notes real paths; it forgets what it knew where they differ."""
    last = finished / "checkpoints" / "last.ckpt"
    checkpoint, best = torch.load(last, weights_only=True), (finished / "checkpoints" / "best.ckpt").read_bytes()
    (state,) = (state for state in checkpoint["callbacks"].values() if state.get("monitor"))
    state |= {"best_model_score": torch.tensor(2.0), "kth_value": torch.tensor(2.0)}  # which no epoch reaches
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(2.0))
    torch.save(checkpoint, last)
    (tmp_path / "link").symlink_to(finished)
    code, output = in_process(
        *TINY, "trainer.max_epochs=5", f"hydra.run.dir={tmp_path}/link", f"data.cache_dir={tmp_path}/cache"
    )
    assert code == 0 and "epoch   5/5" in output and (finished / "checkpoints" / "best.ckpt").read_bytes() == best


def test_the_same_command_on_another_machine_goes_on_in_the_precision_that_it_began_with(
    finished, in_process, tmp_path, monkeypatch
):
    before = metrics(finished)["precision"]
    monkeypatch.setattr("transfer_learning.hardware.native_precision", lambda accelerator: "64-true")
    (finished / "metrics.json").unlink()
    code, output = in_process(
        *TINY, "trainer.max_epochs=2", f"hydra.run.dir={finished}", f"data.cache_dir={tmp_path}/cache"
    )
    assert code == 0 and metrics(finished)["precision"] == before != "64-true", output


def test_a_cache_may_lie_elsewhere_when_it_goes_on(finished, in_process, tmp_path):
    code, _ = in_process(f"resume={finished}", "trainer.max_epochs=3", f"data.cache_dir={tmp_path}/other cache")
    assert code == 0 and metrics(finished)["epochs"] == 3 and list((tmp_path / "other cache").glob("*.npy"))


def test_more_epochs_extend_it_to_what_it_would_have_been(finished, in_process, tmp_path):
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=4")
    assert (
        code == 0 and "goes on after epoch 2 of 4" in output and "epoch   3/4" in output and "epoch   2/" not in output
    )
    in_process(*TINY, "trainer.max_epochs=4", f"hydra.run.dir={tmp_path}/straight", f"data.cache_dir={tmp_path}/cache")
    assert metrics(finished) == metrics(tmp_path / "straight")
    events = EventAccumulator(str(finished))
    events.Reload()
    assert [event.step for event in events.Scalars("val/acc")] == [1, 2, 3, 4]
    attempts = json.loads((finished / "provenance.json").read_text())
    assert len(attempts) == 2 and f"resume={finished} trainer.max_epochs=4" in attempts[1]["command"]


def test_a_run_that_had_stopped_early_does_not_train_on(tmp_path, in_process):
    """Killed between its last epoch's checkpoint and its test."""
    early = ["callbacks=[checkpoints,early_stopping]", "callbacks.early_stopping.patience=1", "trainer.max_epochs=50"]
    in_process(*TINY, *early, f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache")
    before = metrics(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    code, output = in_process(f"resume={tmp_path}/run")
    assert code == 0 and before["epochs"] < 50 and metrics(tmp_path / "run") == before and "epoch  " not in output


@pytest.mark.parametrize(
    "beside, message",
    [
        ("seed=1", "seed=1: beside resume=… expected nothing but trainer.max_epochs=…"),
        ("model=basic_cnn", "model=basic_cnn: beside resume"),
        ("hydra.run.dir=elsewhere", "hydra.run.dir=elsewhere: beside resume"),
        ("-m", "-m: beside resume"),
        ("trainer.max_epochs=1", "trainer.max_epochs was 2, is 1"),
        ("trainer.max_epochs=many", "trainer.max_epochs was 2, is many"),
    ],
)
def test_whatever_else_is_refused(finished, in_process, beside, message):
    before = contents(finished)
    code, output = in_process(f"resume={finished}", beside)
    assert code == 1 and message in output and "Traceback" not in output and contents(finished) == before


@pytest.mark.parametrize("key", ["resume", "rerun"])
@pytest.mark.parametrize("where", ["nowhere", "~nobody/x", Path(train.__file__).parent / "conf"])
def test_no_run_there(tmp_path, monkeypatch, in_process, key, where):
    monkeypatch.chdir(tmp_path)
    code, output = in_process(f"{key}={where}")
    assert code == 1 and f"{key}={where}: no run there" in output and not list(tmp_path.iterdir())


def test_rerun_repeats_a_run_to_the_bit_elsewhere_and_takes_other_settings(finished, in_process, tmp_path):
    strange = finished.rename(tmp_path / "a=b,c 'd")  # as a job's folder may be called
    before = contents(strange)
    code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/again")
    assert code == 0 and metrics(tmp_path / "again") == metrics(strange) and contents(strange) == before
    assert (tmp_path / "again" / "split.csv").read_bytes() == (strange / "split.csv").read_bytes()
    code, output = in_process("-m", f"rerun={strange}", f"hydra.sweep.dir={tmp_path}/other", "seed=1,2")
    in_process(
        *TINY, "trainer.max_epochs=2", "seed=1", f"hydra.run.dir={tmp_path}/direct", f"data.cache_dir={tmp_path}/cache"
    )
    assert code == 0 and "2 of 2 jobs" in output and "other images" not in output
    assert (
        metrics(tmp_path / "other" / "seed=1") == metrics(tmp_path / "direct") != metrics(tmp_path / "other" / "seed=2")
    )
    code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/data", "data.seed=1")
    assert code == 0 and f"{strange}: the run that is repeated had other images" in output
    code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/wrong", "sede=1")
    assert code == 1 and "sede" in output and "Traceback" not in output
    for group in ("optimizer=adamw", "scheduler=cosine", "trainer=cpu", "+debug=short"):
        code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/wrong", group)
        assert (
            code == 1
            and f"{group}: beside rerun=… expected single values" in output
            and not (tmp_path / "wrong").exists()
        )


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])


def of_another_network(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["network.trainable.0.weight"] = torch.zeros(5, 3, 3, 3)
    torch.save(checkpoint, path)


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


def with_code(path):
    torch.save(torch.load(path, weights_only=True) | {"epoch": Harmful()}, path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (cut_off, "last.ckpt: not a checkpoint of this project's, or damaged"),
        (with_code, "last.ckpt: not a checkpoint of this project's, or damaged"),
        (
            of_another_network,
            "the checkpoint is another network's: its network.trainable.0.weight is (5, 3, 3, 3), expected (4, 3, 3, 3)",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_from(finished, in_process, damage, message):
    damage(finished / "checkpoints" / "last.ckpt")
    before = contents(finished)["checkpoints" / Path("last.ckpt")]
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 1 and message in output and "Traceback" not in output and "never be printed" not in output
    assert (finished / "checkpoints" / "last.ckpt").read_bytes() == before
    assert message in (finished / "FAILED").read_text()


def test_the_best_checkpoint_is_gone(finished, in_process):
    (finished / "checkpoints" / "best.ckpt").unlink()
    (finished / "metrics.json").unlink()
    code, output = in_process(f"resume={finished}")
    assert code == 1 and "best.ckpt: no such checkpoint" in output and "Traceback" not in output


def test_two_runs_at_once_in_one_folder(finished, in_process):
    with FileLock(finished / ".lock"):
        code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 1 and f"{finished}: another run is at work in this folder" in output
    assert metrics(finished)["epochs"] == 2


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_epochs_before(finished, in_process):
    last = finished / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] = 1e9
    torch.save(checkpoint, last)
    before = last.read_bytes()
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=4")
    assert code == 1 and "epoch 3, step 2: the loss is not finite" in output and "Traceback" not in output
    assert last.read_bytes() == before and "epoch 3, step 2" in (finished / "FAILED").read_text()


def on_small_disk(tmp_path, script):
    """Runs a shell script where tmp_path/disk is a file system of its own; `$RUN` is the command."""
    (tmp_path / "disk").mkdir()
    try:
        subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "disk"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a kernel that lets users mount a tmpfs in a namespace of their own (unshare -rm)")
    run = f"{sys.executable} {train.__file__} {' '.join(TINY)} trainer.max_epochs=6 data.cache_dir={tmp_path}/cache hydra.run.dir=$D/run"
    script = f"D={tmp_path}/disk; set -e; {script.replace('$RUN', run)}"
    return subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=200)


def test_a_full_disk_keeps_the_last_good_checkpoint_and_with_room_the_run_goes_on(finished, tmp_path, in_process):
    """The disk takes some epochs' checkpoints, not those that the best of them adds; then it grows, and the same command ends the run."""
    size = 60_000 + sum(len(content) for path, content in contents(finished).items() if path.suffix == ".ckpt")
    result = on_small_disk(
        tmp_path,
        f"mount -t tmpfs -o size={size} tmpfs $D; $RUN && exit 5; cat $D/run/FAILED; ls $D/run/checkpoints; "
        f"mount -o remount,size=50m $D; $RUN; cp -r $D/run {tmp_path}/copy",
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0 and "Traceback" not in output, output
    assert output.count("No space left on device. Make room there") == 2  # the log, and FAILED
    assert "last.ckpt\n" in output and "partial" not in output and "goes on after epoch" in output
    in_process(*TINY, "trainer.max_epochs=6", f"hydra.run.dir={tmp_path}/straight", f"data.cache_dir={tmp_path}/cache")
    assert metrics(tmp_path / "copy") == metrics(tmp_path / "straight")


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml", "provenance.json"])
def test_a_damaged_file_of_its_own_is_named(finished, in_process, name):
    (finished / name).write_bytes(b"\xff{")
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 1 and str(finished / name) in output and "Traceback" not in output


@pytest.mark.parametrize("made", ["true", "mkdir $D/run"])
def test_a_folder_that_cannot_be_written(tmp_path, made):
    result = on_small_disk(tmp_path, f"mount -t tmpfs tmpfs $D; {made}; mount -o remount,ro $D; $RUN")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert (
        f"{tmp_path}/disk/run" in result.stderr
        and ": Read-only file system. Make room or make it writable, or" in result.stderr
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("data.root=/nowhere", "data.root=/nowhere: no such folder"),
        ("data=cartoons data.augment=no", "data.augment=no: expected true or false"),
        ("data=image_folder", "data.root: has no value; give it one, data.root=…"),
        ("data.root=2024", "2024: no such folder"),
        ("data=image_folder data.root=FOLDER", "classes found: none; expected at least two classes"),
        ("data=image_folder data.root=ONE", "classes found: rose; expected at least two classes"),
        ("data.root=CATS", "class 'cat' has 3 images, but 2500 are asked for"),
        ("data=cartoons data.batch_size=0", "data.batch_size=0: expected a whole number of at least 1"),
        (
            f"{SMALL} data.batch_size=41",
            "data.batch_size=41: expected a multiple of the 1 devices, at most the 40 training images",
        ),
        ("data=cartoons data.image_size=0", "data.image_size=0: expected a whole number of at least 1"),
        (f"{SMALL} data.image_size=21", "data.image_size=21: too small for 3 convolutions"),
        (f"{SMALL} model=vgg16_frozen model.weights=FOLDER/w.pth", "w.pth: no such file"),
        ("data=cartoons data.train_per_class=3 data.val_per_class=1 data.test_per_class=1 trainer=gpu", "trainer: "),
        (
            f"{SMALL} trainer.compile=true",
            "trainer.compile=true: no C++ compiler /no/compiler",
        ),
        ("data=cartoons trainer.compile=maybe", "trainer.compile=maybe: expected true or false"),
        ("data.agument=true", "Key 'agument' is not in struct"),
        ("modle=basic_cnn", "Could not override 'modle'"),
        ("model=basic", "Available options in 'model': basic_cnn frozen regularised_cnn vgg16_finetuned vgg16_frozen"),
    ],
)
def test_a_mistake_is_one_clear_error_without_a_traceback(
    tmp_path, monkeypatch, in_process, write_image, arguments, message
):
    if torch.cuda.is_available() and "trainer=gpu" in arguments:
        pytest.skip("there is a GPU")
    monkeypatch.setenv("CXX", "/no/compiler")
    (tmp_path / "FOLDER").mkdir()
    for seed, name in enumerate(
        ["ONE/rose/1.png", *(f"CATS/{label}/{number}.png" for label in ("cat", "dog") for number in range(3))]
    ):
        write_image(tmp_path / name, seed)
    for name in ("FOLDER", "ONE", "CATS"):
        arguments = arguments.replace(name, str(tmp_path / name))
    code, output = in_process(*arguments.split(), f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache")
    assert code == 1 and message in output and "Traceback" not in output
    assert not (tmp_path / "run" / "checkpoints").exists()
