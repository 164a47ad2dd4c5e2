import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from transfer_learning import resolvers  # noqa: F401, for ${when:…}
from transfer_learning.errors import UserError
from transfer_learning.run_folder import RunFolder

CONFIG = {"seed": 0, "data": {"root": None, "sizes": [1, 2]}, "optimizer": {"lr": 1e-7}, "trainer": {"max_epochs": 5}}
HYDRA = {"run": {"dir": "somewhere"}}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def changed(**values):
    config = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


def agree(folder, config, may_extend=True):
    folder.agree(OmegaConf.create(config), HYDRA, may_extend)


def leave(folder, *names):
    for name in names:
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"epochs": 5}')


def test_a_config_comes_back_as_it_was_and_knows_where_it_lies(folder, tmp_path):
    assert folder.config() is None
    config = OmegaConf.create(
        CONFIG | {"half": "${when:true,1e-4,0}", "text": "1e-4", "none": "null", "yes": "on", "far": f"{tmp_path}2/x"}
    )
    for _ in range(2):
        folder.agree(config, HYDRA, may_extend=True)
        assert folder.config() == CONFIG | {
            "half": 1e-4,
            "text": "1e-4",
            "none": "null",
            "yes": "on",
            "far": f"{tmp_path}2/x",
        }
        config = OmegaConf.load(tmp_path / "config.yaml")
        config.pop("hydra")
        leave(folder, "metrics.json")


@pytest.mark.parametrize("results", ["metrics.json", "checkpoints/last.ckpt"])
def test_results_of_another_config_are_refused_with_the_difference(folder, results):
    agree(folder, CONFIG)
    leave(folder, results)
    agree(folder, CONFIG)
    before = (folder.path / "config.yaml").read_bytes()
    other = changed(optimizer__lr=0.1, data__sizes=[1], data__new=True)
    with pytest.raises(
        UserError,
        match=r"data.new was absent, is True; data.sizes was \[1, 2\], is \[1\]; optimizer.lr was 1e-07, is 0.1",
    ):
        agree(folder, other)
    assert (folder.path / "config.yaml").read_bytes() == before and (folder.path / results).exists()
    (folder.path / results).unlink()
    agree(folder, other)  # nothing is lost by it
    assert folder.config() == other


def test_results_without_a_config_are_not_written_over(folder):
    leave(folder, "checkpoints/last.ckpt")
    with pytest.raises(UserError, match="seed was absent"):
        agree(folder, CONFIG)


def test_only_more_epochs_extend_a_run_and_only_where_it_may_be(folder):
    agree(folder, CONFIG)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    for config, may_extend in (
        (changed(trainer__max_epochs=4), True),
        (changed(trainer__max_epochs=None), True),
        (changed(trainer__max_epochs=6), False),
        (changed(trainer__max_epochs=6, optimizer__lr=1), True),
    ):
        with pytest.raises(UserError, match="trainer.max_epochs was 5"):
            agree(folder, config, may_extend)
        assert folder.metrics()
    agree(folder, changed(trainer__max_epochs=6))
    assert folder.metrics() is None and folder.last.exists() and (folder.path / "metrics-5-epochs.json").exists()


def test_where_things_lie_is_no_other_config(folder):
    config = changed(data__cache_dir="/here")
    agree(folder, config)
    leave(folder, "metrics.json", "checkpoints/last.ckpt")
    agree(folder, changed(data__cache_dir="/there"))
    assert folder.config()["data"]["cache_dir"] == "/there" and folder.metrics()


def test_a_damaged_config_is_named(folder):
    for text in ("{", "a: ${", "- 1", "seed: 0\n"):
        (folder.path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="config.yaml: not the config of a run"):
            folder.config()


def test_one_process_at_a_time_and_the_lock_dies_with_it(folder):
    script = (
        "import sys, time; from transfer_learning.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).occupied(): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="another run is at work in this folder"), folder.occupied():
        pass
    assert not (folder.path / "FAILED").exists()  # that is the other run's to say
    other.kill()
    other.wait()
    with folder.occupied():
        pass


def test_half_written_checkpoints_go_and_nothing_else(folder):
    leave(folder, "checkpoints/best.ckpt.partial", "checkpoints/best.ckpt", "thesis.partial")
    with folder.occupied():
        pass
    assert {path.name for path in folder.path.rglob("*")} >= {"best.ckpt", "thesis.partial"} and not list(
        folder.path.rglob("*.ckpt.partial")
    )


def test_a_failure_leaves_its_reason_until_the_next_attempt(folder):
    with pytest.raises(UserError), folder.occupied():
        raise UserError("what it was")
    assert (folder.path / "FAILED").read_text() == "what it was\n"
    with pytest.raises(KeyboardInterrupt), folder.occupied():
        assert not (folder.path / "FAILED").exists()
        raise KeyboardInterrupt  # an interrupt is no failure
    assert not (folder.path / "FAILED").exists()


def images(names, digests):
    labels = np.arange(len(names)) % 2
    listed = SimpleNamespace(names=names, digests=digests)
    halves = np.array_split(np.arange(len(names)), 2)
    return SimpleNamespace(
        images=listed, labels=labels, class_names=("a", "b"), parts=dict(zip(("train", "test"), halves))
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=6, unique=True))
def test_every_file_of_the_split_is_listed_whatever_its_name(folder, names):
    data = images(names, [f"{index:064x}" for index in range(len(names))])
    folder.record(data, {})
    with open(folder.path / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == names
    assert [row["sha256"] for row in rows] == data.images.digests
    assert [row["class"] for row in rows] == ["ab"[index % 2] for index in range(len(names))]
    assert [row["part"] for row in rows] == [part for part, rows in data.parts.items() for _ in rows]


def test_a_run_that_goes_on_has_the_images_that_it_began_with(folder):
    names, digests = list("wxyz"), list("0123")
    folder.record(images(names, digests), {"number": 1})
    leave(folder, "checkpoints/last.ckpt")
    folder.record(images(["elsewhere/" + name for name in names], digests), {"number": 2})  # names may change
    assert json.loads((folder.path / "provenance.json").read_text()) == [{"number": 1}, {"number": 2}]
    classes_exchanged = images(names, digests)
    classes_exchanged.class_names = ("b", "a")
    for others in (images(names, list("0124")), images(names, list("0213")), classes_exchanged):
        with pytest.raises(UserError, match="split.csv: this run began with other images"):
            folder.record(others, {"number": 3})
    folder.last.unlink()
    folder.record(images(names, list("0124")), {"number": 3})  # from the beginning
