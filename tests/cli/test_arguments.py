"""Arguments: mistakes, `resume=RUN` and `rerun=RUN`, and what may be wrong with RUN."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from transfer_learning.cli.arguments import prepare, repeated_keys
from transfer_learning.cli.project import PROJECT
from transfer_learning.utilities.errors import UserError

SIZES = ["data.image_size=32", "data.train_per_class=20", "data.val_per_class=8", "data.test_per_class=8"]
SMALL = ["data=cartoons", *SIZES, "trainer=cpu"]
SMALL_CNN = ["model=regularised_cnn", "model.channels=[4,8]", "model.dense=[16]"]
WITHOUT_CALLBACKS = [*SMALL, *SMALL_CNN, "data.augment=true", "optimizer.lr=1e-3", "trainer.deterministic=true"]
TINY = [*WITHOUT_CALLBACKS, "callbacks=[checkpoints]"]  # the others take most of the time
EARLY = ["callbacks=[checkpoints,early_stopping]", "callbacks.early_stopping.patience=1", "trainer.max_epochs=50"]


@pytest.mark.parametrize(
    "argument, message",
    [
        ("model=null", "model=null: expected one of basic_cnn, pretrained,"),
        ("objective=0.1", "objective=0.1: expected one of cross_entropy."),
        ("optimizer=sgd,null", "optimizer=sgd,null: expected one of adamw, rmsprop, sgd."),
        ("data/split=true", "data/split=true: expected one of auto, folders, per_class."),
        ("experiment=[fast,best]", "experiment=[fast,best]: expected one of backbones, best, fast,"),
        ("model=[]", "model=[]: expected one of basic_cnn,"),
        (
            "data/augmentation=[affine, color_jitter,affine]",
            "data/augmentation=[affine, color_jitter,affine]: affine is",
        ),
        ("callbacks=[none,2]", "callbacks=[none,2]: expected one of checkpoints, "),
        ("~optimizer", "~optimizer: expected optimizer=..., one of adamw, rmsprop, sgd."),
        ("~data/split=auto", "~data/split=auto: expected data/split=..., one of auto, folders, per_class."),
        (
            "hydra/job_logging=disabled",
            "hydra/job_logging=disabled: a run needs its train.log; expected one of default",
        ),
    ],
)
def test_choice_that_a_group_does_not_have(argument, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        prepare([argument])


@pytest.mark.parametrize("group", ["logger", "callbacks", "metrics", "data/augmentation"])
def test_an_empty_list_is_typed_in_four_ways(group):
    for typed in (f"{group}=[]", f"{group}=null", f"~{group}", f"{group}=none"):
        assert prepare([typed]) == [f"{group}=none"]


def test_null_is_the_default():
    assert prepare(["experiment=null", "debug=null", "system=null", "seed=1"]) == ["seed=1"]
    kept = [
        "model=basic_cnn,vgg16_frozen",
        "data/augmentation=[affine,color_jitter]",
        "seed=null",
        "model.weights=null",
    ]
    assert prepare(kept) == kept


@pytest.fixture
def cache(tmp_path):
    return f"data.cache_dir={tmp_path}/cache"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The folder of a run of two epochs, which `finished` trains when it is first used."""
    return tmp_path_factory.mktemp("original") / "run"


@pytest.fixture
def finished(original, tmp_path, in_process):
    """A copy of the folder of a run of two epochs."""
    if not original.exists():
        where = [f"hydra.run.dir={original}", f"data.cache_dir={original.parent}/cache"]
        code, output = in_process(*TINY, "trainer.max_epochs=2", *where)
        assert code == 0, output
    shutil.copytree(original, tmp_path / "run")
    shutil.copytree(original.parent / "cache", tmp_path / "cache")
    return tmp_path / "run"


def metrics(folder):
    values = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in values.items() if "seconds" not in key}


def contents(folder):
    """Of all files except the log, the lock and FAILED."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("train.log", ".lock", "FAILED")]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def edit(config_file, *deleted, **changed):
    """Deletes keys of a run's config.yaml, and changes top-level keys."""
    config = OmegaConf.load(config_file)
    for key in deleted:
        group, _, name = key.rpartition(".")
        del (OmegaConf.select(config, group) if group else config)[name]
    OmegaConf.save(OmegaConf.merge(config, changed), config_file)


def test_finished_run_is_not_trained_again(finished, in_process):
    before = contents(finished)
    code, output = in_process(f"resume={finished}")
    assert code == 0 and f"{finished}: finished already" in output and contents(finished) == before
    assert "epoch  " not in output and "A larger trainer.max_epochs extends it." in output


def test_run_reached_through_a_link_keeps_its_best_epoch(finished, in_process, tmp_path, cache):
    """ModelCheckpoint saves real paths, and forgets its state if they differ."""
    last = finished / "checkpoints" / "last.ckpt"
    checkpoint, best = torch.load(last, weights_only=True), (finished / "checkpoints" / "best.ckpt").read_bytes()
    (state,) = (state for state in checkpoint["callbacks"].values() if state.get("monitor"))
    state |= {"best_model_score": torch.tensor(2.0), "kth_value": torch.tensor(2.0)}  # which no epoch reaches
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(2.0))
    torch.save(checkpoint, last)
    (tmp_path / "link").symlink_to(finished)
    code, output = in_process(*TINY, "trainer.max_epochs=5", f"hydra.run.dir={tmp_path}/link", cache)
    assert code == 0 and "epoch   5/5" in output and (finished / "checkpoints" / "best.ckpt").read_bytes() == best


def test_run_goes_on_in_the_precision_that_it_began_with(finished, in_process, monkeypatch, cache):
    """As if the same command was typed on another machine."""
    before = metrics(finished)["precision"]
    monkeypatch.setattr("transfer_learning.cli.job.default_precision", lambda accelerator: "64-true")
    (finished / "metrics.json").unlink()
    code, output = in_process(*TINY, "trainer.max_epochs=2", f"hydra.run.dir={finished}", cache)
    assert code == 0 and metrics(finished)["precision"] == before != "64-true", output


def test_cache_may_be_elsewhere_when_a_run_goes_on(finished, in_process, tmp_path):
    code, _ = in_process(f"resume={finished}", "trainer.max_epochs=3", f"data.cache_dir={tmp_path}/other cache")
    assert code == 0 and metrics(finished)["epochs"] == 3 and list((tmp_path / "other cache").glob("*.rows"))


@pytest.mark.slow
def test_more_epochs_give_the_results_of_a_longer_run(finished, in_process, tmp_path, cache, next_second):
    next_second()
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=4")
    assert code == 0 and "goes on after epoch 2 of 4" in output
    assert "epoch   3/4" in output and "epoch   2/" not in output
    in_process(*TINY, "trainer.max_epochs=4", f"hydra.run.dir={tmp_path}/straight", cache)
    assert metrics(finished) == metrics(tmp_path / "straight")
    assert json.loads((finished / "metrics-2-epochs.json").read_text())["epochs"] == 2
    events = EventAccumulator(str(finished))
    events.Reload()
    assert [event.step for event in events.Scalars("val/acc")] == [1, 2, 3, 4]
    attempts = json.loads((finished / "provenance.json").read_text())
    assert len(attempts) == 2 and f"resume={finished} trainer.max_epochs=4" in attempts[1]["command"]


def test_run_that_had_stopped_early_does_not_train_on(tmp_path, in_process, cache):
    """It was killed between its last epoch's checkpoint and its test."""
    in_process(*WITHOUT_CALLBACKS, *EARLY, f"hydra.run.dir={tmp_path}/run", cache)
    before = metrics(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    code, output = in_process(f"resume={tmp_path}/run")
    assert code == 0 and before["epochs"] < 50 and metrics(tmp_path / "run") == before and "epoch  " not in output


@pytest.mark.parametrize(
    "beside, message",
    [
        ("seed=1", "seed=1: beside resume=... expected nothing but trainer.max_epochs=..."),
        ("model=basic_cnn", "model=basic_cnn: beside resume"),
        ("hydra.run.dir=elsewhere", "hydra.run.dir=elsewhere: beside resume"),
        ("-m", "-m: beside resume"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many: expected a whole number, 1 or more (in "),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: expected a whole number, 1 or more"),
        ("trainer.max_epochs=null", "trainer.max_epochs=null: expected a whole number, 1 or more"),
    ],
)
def test_other_arguments_beside_resume_are_refused(finished, in_process, beside, message):
    before = contents(finished)
    code, output = in_process(f"resume={finished}", beside)
    assert code == 1 and message in output and "Traceback" not in output and contents(finished) == before


@pytest.mark.parametrize("key", ["resume", "rerun"])
@pytest.mark.parametrize("where", ["nowhere", "~nobody/x", Path(train.__file__).parent / "conf"])
def test_folder_without_a_run_is_refused(tmp_path, monkeypatch, in_process, key, where):
    monkeypatch.chdir(tmp_path)
    code, output = in_process(f"{key}={where}")
    assert code == 1 and f"{key}={where}: no run there" in output and not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["resume", "rerun"])
def test_damaged_config_is_one_message(tmp_path, in_process, key):
    for name, text in {"config.yaml": "seed: 0\n", "train.log": ""}.items():
        (tmp_path / name).write_text(text)
    reason = "not the config of a run, or damaged (ValueError: it has no list `overrides`)."
    assert in_process(f"{key}={tmp_path}") == (1, f"{tmp_path}/config.yaml: {reason}\n")


@pytest.mark.slow
def test_rerun_repeats_a_run_to_the_bit_and_takes_other_settings(finished, in_process, tmp_path, cache):
    strange = finished.rename(tmp_path / "a=b,c 'd")  # as the folder of a job may be called
    before = contents(strange)
    code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/again")
    assert code == 0 and metrics(tmp_path / "again") == metrics(strange) and contents(strange) == before
    assert (tmp_path / "again" / "split.csv").read_bytes() == (strange / "split.csv").read_bytes()
    code, output = in_process("-m", f"rerun={strange}", f"hydra.sweep.dir={tmp_path}/other", "seed=1,2")
    in_process(*TINY, "trainer.max_epochs=2", "seed=1", f"hydra.run.dir={tmp_path}/direct", cache)
    assert code == 0 and "2 of 2 jobs" in output and "other images" not in output
    one, two = (metrics(tmp_path / "other" / f"seed={seed}") for seed in (1, 2))
    assert one == metrics(tmp_path / "direct") != two
    code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/data", "data.seed=1")
    assert code == 0 and f"{strange}: the run that is repeated had other images" in output
    code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/wrong", "sede=1")
    assert code == 1 and "sede" in output and "Traceback" not in output
    for group in ("optimizer=adamw", "scheduler=cosine", "trainer=cpu", "+debug=short"):
        code, output = in_process(f"rerun={strange}", f"hydra.run.dir={tmp_path}/wrong", group)
        assert code == 1 and f"{group}: beside rerun=... expected single values" in output
        assert f"{strange}/provenance.json" in output and not (tmp_path / "wrong").exists()


def test_rerun_follows_another_monitor(finished, in_process, tmp_path):
    code, output = in_process(f"rerun={finished}", f"hydra.run.dir={tmp_path}/again", "monitor=val/loss")
    assert code == 0, output
    assert (metrics(tmp_path / "again")["monitor"], metrics(tmp_path / "again")["monitor_mode"]) == ("val/loss", "min")


def test_key_that_the_program_gained_later_does_not_refuse_a_finished_run(finished, in_process, cache):
    edit(finished / "config.yaml", "data.resize", "test", "trainer.deterministic")
    command = [*TINY, "trainer.max_epochs=2", f"hydra.run.dir={finished}", cache]
    for arguments in ([f"resume={finished}"], command):
        code, output = in_process(*arguments)
        assert code == 0 and f"{finished}: finished already" in output, output
    for typed in ("data.resize=stretch", "test=true"):
        code, output = in_process(*command, typed)
        key, _, value = typed.partition("=")
        assert code == 1 and f"another config: {key} was absent, is {value.replace('true', 'True')}." in output


def test_group_that_is_chosen_anew_refuses_a_finished_run(finished, in_process, cache):
    command = [*TINY, "trainer.max_epochs=2", f"hydra.run.dir={finished}", cache]
    for argument in ("metrics=[macro_f1]", "scheduler=cosine", "logger=[tensorboard,csv]", "+trainer.max_steps=7"):
        code, output = in_process(*command, argument)
        assert code == 1 and "has results of another config" in output, f"{argument}: {output}"


def test_experiment_that_only_adds_keys_refuses_a_finished_run(finished, in_process, cache, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    metric = "{_target_: torchmetrics.classification.MulticlassF1Score, _partial_: true}"
    text = f"# @package _global_\nmetrics: {{macro_f1: {metric}}}\n"
    (tmp_path / "conf" / "experiment" / "more.yaml").write_text(text)
    where = [f"hydra.run.dir={finished}", cache, f"hydra.searchpath=[file://{tmp_path}/conf]"]
    code, output = in_process(*TINY, "trainer.max_epochs=2", *where, "experiment=more")
    assert code == 1 and "metrics.macro_f1._target_ was absent" in output, output


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
        (cut_off, "last.ckpt: not a checkpoint of this project, or damaged"),
        (with_code, "last.ckpt: not a checkpoint of this project, or damaged"),
        (
            of_another_network,
            "checkpoint is of another network: its network.trainable.0.weight is (5, 3, 3, 3), expected (4, 3, 3, 3)",
        ),
    ],
)
def test_unusable_checkpoint_is_refused_and_kept(finished, in_process, damage, message):
    damage(finished / "checkpoints" / "last.ckpt")
    before = contents(finished)["checkpoints" / Path("last.ckpt")]
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 1 and message in output and "Traceback" not in output and "never be printed" not in output
    assert (finished / "checkpoints" / "last.ckpt").read_bytes() == before
    assert message in (finished / "FAILED").read_text()


def test_missing_best_checkpoint_is_named(finished, in_process):
    (finished / "checkpoints" / "best.ckpt").unlink()
    (finished / "metrics.json").unlink()
    code, output = in_process(f"resume={finished}")
    assert code == 1 and "best.ckpt: no such checkpoint" in output and "Traceback" not in output


def test_two_runs_at_once_in_one_folder_are_refused(finished, in_process):
    with FileLock(finished / ".lock"):
        code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 1 and f"{finished}: another run is using this folder" in output
    assert metrics(finished)["epochs"] == 2


def test_loss_that_is_not_finite_names_the_step_and_keeps_earlier_epochs(finished, in_process):
    last = finished / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] = 1e9
    torch.save(checkpoint, last)
    before = last.read_bytes()
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=4")
    assert code == 1 and "epoch 3, step 2: the loss is not finite" in output and "Traceback" not in output
    assert last.read_bytes() == before and "epoch 3, step 2" in (finished / "FAILED").read_text()


def on_small_disk(tmp_path, script):
    """Runs a shell script in which tmp_path/disk is a file system of its own; `$RUN` is the command."""
    (tmp_path / "disk").mkdir()
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "disk"]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a kernel that lets users mount a tmpfs in their own namespace (unshare -rm)")
    arguments = [*TINY, "trainer.max_epochs=6", f"data.cache_dir={tmp_path}/cache", "hydra.run.dir=$D/run"]
    script = script.replace("$RUN", f"{shlex.join([sys.executable, train.__file__])} {' '.join(arguments)}")
    script = f"D={tmp_path}/disk; set -e; {script}"
    return subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_full_disk_keeps_the_last_checkpoint_and_with_room_the_run_goes_on(finished, tmp_path, in_process, cache):
    """The disk has room for some epochs' checkpoints. Then it grows, and the same command ends the run."""
    size = 60_000 + sum(len(content) for path, content in contents(finished).items() if path.suffix == ".ckpt")
    result = on_small_disk(
        tmp_path,
        f"mount -t tmpfs -o size={size} tmpfs $D; $RUN && exit 5; cat $D/run/FAILED; ls $D/run/checkpoints; "
        f"mount -o remount,size=50m $D; $RUN; cp -r $D/run {tmp_path}/copy",
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0 and "Traceback" not in output, output
    assert output.count("No space left on device. Free some space there, or") == 2  # the log, and FAILED
    assert "last.ckpt\n" in output and "partial" not in output and "goes on after epoch" in output
    in_process(*TINY, "trainer.max_epochs=6", f"hydra.run.dir={tmp_path}/straight", cache)
    assert metrics(tmp_path / "copy") == metrics(tmp_path / "straight")


@pytest.mark.parametrize("name", ["metrics.json", "config.yaml", "provenance.json"])
def test_damaged_file_of_a_run_is_named(finished, in_process, name):
    (finished / name).write_bytes(b"\xff{")
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 1 and str(finished / name) in output and "Traceback" not in output


@pytest.mark.parametrize("made", ["true", "mkdir $D/run"])
def test_folder_that_cannot_be_written_is_named(tmp_path, made):
    result = on_small_disk(tmp_path, f"mount -t tmpfs tmpfs $D; {made}; mount -o remount,ro $D; $RUN")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert f"{tmp_path}/disk/run" in result.stderr
    assert ": Read-only file system. Make room or make it writable, or" in result.stderr


GROUPS = "basic_cnn, pretrained, regularised_cnn, resnet_small, small_cnn, vgg16_finetuned, vgg16_frozen"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("data.root=/nowhere", "data.root=/nowhere: no such folder"),
        ("data=cartoons data.augment=maybe", "data.augment=maybe: expected a valid boolean"),
        ("data=image_folder", "data.root: has no value; give it one, data.root=..."),
        ("data.root=2024", "2024: no such folder"),
        ("data=image_folder data.root=FOLDER", "FOLDER: classes found: none; expected at least two classes"),
        ("data=image_folder data.root=ONE", "ONE: classes found: rose; expected at least two classes"),
        ("data.root=CATS", "data.train_per_class=1500: class 'cat' has 3 images, but 2500 are asked for"),
        ("data=cartoons data.batch_size=0", "data.batch_size=0: expected greater than or equal to 1"),
        (
            "SMALL data.batch_size=41",
            "data.batch_size=41: expected at most the 40 training images",
        ),
        ("data=cartoons data.image_size=0", "data.image_size=0: expected greater than or equal to 1"),
        ("SMALL data.image_size=21", "data.image_size=21: too small for 3 convolutions"),
        ("SMALL model=vgg16_frozen model.weights=FOLDER/w.pth", "model.weights=FOLDER/w.pth: no such file"),
        ("data=cartoons data.train_per_class=3 data.val_per_class=1 data.test_per_class=1 trainer=gpu", "trainer"),
        ("SMALL trainer.accelerator=gpus", "trainer.accelerator=gpus: no such accelerator; expected auto, cpu,"),
        (
            "SMALL trainer.compile=true",
            "trainer.compile=true: torch cannot compile for cpu (RuntimeError: none). Install",
        ),
        ("data=cartoons trainer.compile=maybe", "trainer.compile=maybe: expected a valid boolean"),
        ("SMALL data.views=2", "data.views=2: views are augmented images, so augment=true is needed."),
        ("SMALL model=vgg16_frozen model.weights=null model.unfreeze=block9", "model.unfreeze=block9: expected null,"),
        (
            "SMALL model=pretrained model.backbone=resnet19",
            "model.backbone=resnet19: no such network in torchvision; did you mean resnet1",
        ),
        ("SMALL trainer.limit_val_batches=0", "trainer.limit_val_batches=0: expected more than 0."),
        ("SMALL monitor=val/f2", "monitor=val/f2: no such metric; expected one of val/acc, val/loss, val/balanced_acc"),
        ("SMALL monitor=valid/macro_f1", "monitor=valid/macro_f1: no such metric; expected one of val/acc, val/loss,"),
        ("SMALL data.balance=over", "data.balance=over: expected 'none', 'sampler' or 'weights'"),
        ("SMALL data.folds=1", "data.folds=1: expected 2 or more"),
        ("SMALL data.folds=5 data.fold=5", "data.fold=5: expected 0 to 4"),
        ("SMALL data.train_share=0", "data.train_share=0: expected"),
        ("data.agument=true", "data.agument: there is no such key in the config; did you mean data.augment?"),
        ("modle=basic_cnn", "modle: there is no such key in the config; did you mean model?"),
        ("max_epochs=3", "max_epochs: there is no such key in the config; did you mean trainer.max_epochs?"),
        ("batchsize=3", "batchsize: there is no such key in the config; did you mean data.batch_size?"),
        ("data=cartoons data.root=x", "data.root: there is no such key in the config; expected one of augment, "),
        ("model.xyz.depth=2", "model.xyz: there is no such key in the config; expected one of "),
        ("qqq=2", "qqq: there is no such key in the config; conf/ has them all."),
        ("seed=0,1", "seed=0,1: several values are a sweep, which needs -m: python train.py -m ...; a list needs"),
        ("seed=range(1,3)", "seed=range(1,3): several values are a sweep, which needs -m"),
        ("data.root=ONE", "data.root=ONE: classes found: none; expected cat and dog."),
        ("data.root=ONE", "Without data=image_folder (or data=table), the images are those of Dogs vs Cats."),
        ("data=image_folder data.root=ONE/rose", "If this folder is a class, name the folder above it."),
        ("data=image_folder data.root=ONE/rose/1.png", "data.root=ONE/rose/1.png: a file, not a folder; expected"),
        (
            "data=image_folder data.root=CATS",
            "(val_per_class=0.2, test_per_class=0.2); it needs at least one image: add images, or ask for a count, "
            "such as 1.",
        ),
        (
            "data=image_folder data.root=CATS data.val_per_class=20",
            "data.val_per_class=20: class 'cat' has 3 images, but",
        ),
        ("model=basic", f"model=basic: there is no such file in conf/model/; expected one of {GROUPS}"),
        (
            "logger=[csv,tensorbord]",
            "logger=tensorbord: there is no such file in conf/logger/; expected one of csv, none",
        ),
    ],
)
def test_mistake_is_one_error_without_a_traceback(tmp_path, monkeypatch, in_process, write_image, arguments, message):
    if torch.cuda.is_available() and "trainer=gpu" in arguments:
        pytest.skip("there is a GPU")

    def no_compiler(function):
        raise RuntimeError("none\nand more lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    (tmp_path / "FOLDER").mkdir()
    names = ["ONE/rose/1.png", *(f"CATS/{label}/{number}.png" for label in ("cat", "dog") for number in range(3))]
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed)
    for name in ("FOLDER", "ONE", "CATS"):
        arguments, message = (text.replace(name, str(tmp_path / name)) for text in (arguments, message))
    arguments = arguments.replace("SMALL", " ".join(SMALL)).split()
    code, output = in_process(*arguments, f"hydra.run.dir={tmp_path}/run", f"data.cache_dir={tmp_path}/cache")
    assert code == 1 and message in output and "Traceback" not in output, output
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["data.root=/my", "photos"],
            """photos: expected KEY=VALUE; a value with spaces needs quotes: "data.root='/my""",
        ),
        (["photos"], "photos: expected KEY=VALUE."),
        (["data.root", "=", "x"], "data.root =: expected KEY=VALUE, without spaces beside =."),
        (["seed=1", "data.root", "=x"], "data.root =x: expected KEY=VALUE, without spaces beside =."),
        (["data.root=", "x"], "data.root= x: expected KEY=VALUE, without spaces beside =."),
        (["--model=basic_cnn"], "--model=basic_cnn: expected KEY=VALUE, without dashes: model=basic_cnn"),
        (["--data.root=x"], "--data.root=x: expected KEY=VALUE, without dashes: data.root=x"),
        (["-m", "seed=0", "1"], "1: expected KEY=VALUE; a value with spaces needs quotes: \"seed='0 1'\"."),
        (["-m", "tutorial"], "tutorial: expected KEY=VALUE."),
        (["--resolve", "tutorial"], "tutorial: expected KEY=VALUE."),
        (["--cfg", "job", "-m", "seed=0,1"], "--cfg -m: expected one of them."),
        (["rerun=a", "seed=1", "rerun=b"], "rerun=a rerun=b: expected one of them."),
        (["rerun=a", "resume=b"], "rerun=a resume=b: expected one of them."),
    ],
)
def test_an_argument_without_a_key_is_named(arguments, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        prepare(arguments)


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("seed=1 seed=2", ["seed=1 seed=2: seed is given 2 times; the last one counts."]),
        (
            "-m seed=0,1 model=basic_cnn +seed=2 seed=3 model=small_cnn",
            [
                "seed=0,1 +seed=2 seed=3: seed is given 3 times; the last one counts.",
                "model=basic_cnn model=small_cnn: model is given 2 times; the last one counts.",
            ],
        ),
        ("seed=1 data.seed=2 seed=1 --cfg=job --cfg=all ~optimizer.lr +optimizer.lr=1 -m -m", []),
    ],
)
def test_keys_that_are_given_several_times_are_named(typed, expected):
    assert repeated_keys(typed.split()) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cfg", "job"],
        ["--cfg=job"],
        ["data.exclude=", "-m"],
        ["-cn", "config"],
        ["~optimizer.lr"],
        ["-m", "seed=0,1"],
    ],
)
def test_options_and_removed_keys_need_no_value(arguments):
    assert prepare(arguments) == arguments


@pytest.mark.parametrize("name", ["x${oc.env:HOME}", "back\\", "$HOME", "line\nfeed", "caf\udce9"])
@pytest.mark.parametrize("key", ["resume", "rerun"])
def test_a_folder_that_hydra_would_take_for_another_is_refused(finished, tmp_path, in_process, key, name):
    finished.rename(tmp_path / name)
    code, output = in_process(f"{key}={tmp_path}/{name}")
    assert code == 1 and "which Hydra or TensorBoard would change. Rename the folder" in output
    assert len(output.strip().splitlines()) == 1 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["quo'", 'a "b" [c], d=e', "'both'", "{x}", "a b"])
def test_other_strange_folders_are_resumed(finished, tmp_path, in_process, name):
    folder = finished.rename(tmp_path / name)
    (folder / "metrics.json").unlink()
    code, output = in_process(f"resume={folder}")
    assert code == 0 and (folder / "metrics.json").exists(), output


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, in_process):
    (tmp_path / "run").touch()
    code, output = in_process(*TINY, f"hydra.run.dir={tmp_path}/run")
    assert code == 1 and f"{tmp_path}/run: File exists." in output and "Traceback" not in output


@pytest.mark.parametrize(
    "pattern", [r"(P\d+)_.*", r"P\d{1,2}", r"[^_]+(?=_)", "it's (a) .*", r"'(P\d+)_.*'", r'"(P\d+)_"']
)
def test_the_pattern_of_groups_needs_no_quotes_of_hydras(pattern):
    (argument,) = prepare([f"data.group_pattern={pattern}"])
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", ["data=image_folder", argument])
    assert cfg.data.group_pattern == (pattern[1:-1] if pattern[0] in "'\"" else pattern)


def test_no_pattern_of_groups():
    assert prepare(["data.group_pattern=null"]) == ["data.group_pattern=null"]


@pytest.mark.parametrize("argument", ["data.root=~/my photos (1)", "data.root=~/flowers", "model.weights=~/a.pth"])
def test_a_path_in_the_home_folder_needs_no_quotes_of_hydras(argument):
    (override,) = OverridesParser.create().parse_overrides(prepare([argument]))
    assert override.value() == argument.partition("=")[2]


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_hydras_own_folders_may_be_in_the_home_folder(key):
    (override,) = OverridesParser.create().parse_overrides(prepare([f"{key}=~/my runs"]))
    assert override.value() == os.path.expanduser("~/my runs")


@pytest.mark.parametrize(
    "argument, value",
    [
        ("data.root=/home/zoë/photos", "/home/zoë/photos"),
        ("data.root=/home/zoe\u0308/my photos", "/home/zoe\u0308/my photos"),  # as macOS writes it
        ("data.root='/home/zoë'", "/home/zoë"),
        ("hydra.run.dir=größe", "größe"),
        ("data.classes=[Löwe,Tiger]", ["Löwe", "Tiger"]),
        ("data.classes=[ Löwe , 'kleiner Käfer']", ["Löwe", "kleiner Käfer"]),
        ("sweep=größe", "größe"),
        ("sweep=2026_11_25", "2026_11_25"),
        ("sweep=1e3", "1e3"),
        ("sweep='1e3'", "1e3"),
        ("sweep=true", "true"),
        ("sweep=null", None),
        ("data.root=2024_05", "2024_05"),
        ("hydra.run.dir=2024_05", "2024_05"),
        ("data.train_per_class=1_000", 1000),
        ("model.channels=[4, 8]", [4, 8]),
        ("data.root=a\\, b", "a, b"),
    ],
)
def test_letters_of_all_languages_and_names_like_numbers_need_no_quotes_of_hydras(argument, value):
    (override,) = OverridesParser.create().parse_overrides(prepare([argument]))
    assert override.value() == value


def test_several_values_with_letters_of_all_languages_are_a_sweep():
    (override,) = OverridesParser.create().parse_overrides(prepare(["model.weights=grün.pth,blau.pth"]))
    assert list(override.sweep_string_iterator()) == ["'grün.pth'", "blau.pth"]


def test_a_folder_with_letters_of_all_languages(tmp_path, in_process, cache):
    code, output = in_process(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/größe", cache)
    assert code == 0 and (tmp_path / "größe" / "metrics.json").exists(), output
    code, output = in_process(f"resume={tmp_path}/größe")
    assert code == 0 and f"{tmp_path}/größe: finished already" in output


@pytest.mark.parametrize("argument", ["model.backbone=resnet18", "++model.unfreeze=null", "data.augment=true"])
def test_rerun_with_a_key_that_others_followed_is_refused(finished, in_process, tmp_path, argument):
    code, output = in_process(f"rerun={finished}", f"hydra.run.dir={tmp_path}/again", argument)
    assert code == 1 and f"{argument}: beside rerun=... the run's name, image size, learning rate ... would" in output
    assert f"Take the command from {finished}/provenance.json" in output and not (tmp_path / "again").exists()


def test_a_run_of_a_program_without_later_keys_goes_on(finished, in_process):
    edit(finished / "config.yaml", "find_lr", "test", "monitor")
    (finished / "metrics.json").unlink()
    for path in (finished / "checkpoints").glob("*.ckpt"):
        saved = torch.load(path, weights_only=True)
        for key in ("find_lr", "test", "monitor"):
            del saved["run"]["config"][key]
        torch.save(saved, path)
    code, output = in_process(f"resume={finished}", "trainer.max_epochs=3")
    assert code == 0 and metrics(finished)["epochs"] == 3, output
