import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import needs_linux_names, needs_pipes
from transfer_learning import load
from transfer_learning.cli.verbs.predict import Result, summary, write_explanations
from transfer_learning.engine import inference
from transfer_learning.reporting.prediction_table import read_predictions


@pytest.fixture
def in_another_process():
    """in_another_process(*arguments): `python -m transfer_learning ...`."""

    def start(*arguments, **settings):
        command = [sys.executable, "-m", "transfer_learning", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)

    return start


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_of_the_most_probable_classes(finished, photographs_folder, verb):
    files = sorted(str(path) for path in photographs_folder.glob("cat/*.png"))[:3]
    expected = load(finished).predict(files)
    output = verb("predict", finished, *files)
    assert output.code == 0
    header, _, *lines = output.out.splitlines()
    assert header.split() == ["file", "class", "probability"]
    for line, file, name, row in zip(lines, files, expected.classes, expected.probabilities, strict=True):
        assert line.split() == [file, name, f"{row.max():.4f}"]
    two = verb("predict", finished, files[0], "--top", 2).out.splitlines()[2].split()
    assert verb("predict", finished, files[0], "--top", 9).out.splitlines()[2].split() == two  # there are two classes
    second = "dog" if expected.classes[0] == "cat" else "cat"
    low, high = sorted(expected.probabilities[0])
    assert two == [files[0], expected.classes[0], f"{high:.4f}", second, f"{low:.4f}"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_file_has_all_probabilities_and_equals_the_runs_own_test(finished, verb, tmp_path, suffix):
    own = read_predictions(finished / "predictions.csv").of("test")
    out = tmp_path / f"predictions.{suffix}"
    output = verb("predict", finished, *own.files, "--out", out)
    assert output.code == 0 and output.out.startswith(f"{len(own.files)} images: cat ")
    rows = rows_of(out) if suffix == "csv" else [json.loads(line) for line in out.read_text().splitlines()]
    assert list(rows[0]) == ["file", "predicted", "p:cat", "p:dog"]
    assert [row["file"] for row in rows] == list(own.files)
    assert [row["predicted"] for row in rows] == [own.class_names[code] for code in own.predicted]
    found = np.array([[float(row["p:cat"]), float(row["p:dog"])] for row in rows])
    tolerance = 1e-5 if load(finished).trained_precision == "32-true" else 2e-2
    np.testing.assert_allclose(found, own.probabilities, rtol=0, atol=tolerance)


def test_folders_patterns_and_files_in_that_order(finished, photographs_folder, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(photographs_folder)
    (tmp_path / "mixed" / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/a.JPEG", "notes.txt", ".hidden.png"):
        shutil.copy(photographs_folder / "cat" / "0.png", tmp_path / "mixed" / name)
    verb("predict", finished, tmp_path / "mix*", "dog/1*.png", "cat/2.png", "--out", tmp_path / "p.csv")
    dogs = sorted(path.name for path in (photographs_folder / "dog").glob("1*.png"))
    inside = [str(tmp_path / "mixed" / name) for name in ("b.png", "deep/a.JPEG")]
    expected = [*inside, *(f"dog/{name}" for name in dogs), "cat/2.png"]
    assert [row["file"] for row in rows_of(tmp_path / "p.csv")] == expected


def test_unreadable_images_are_named_and_skipped(finished, photographs_folder, verb, tmp_path):
    broken, good = tmp_path / "broken.jpg", photographs_folder / "cat" / "0.png"
    broken.write_bytes(b"no image")
    output = verb("predict", finished, broken, good, "--out", tmp_path / "p.csv")
    assert output.code == 1 and f"{broken}: skipped, not readable as an image (Unidentified" in output.err
    assert [row["file"] for row in rows_of(tmp_path / "p.csv")] == [str(good)]
    alone = verb("predict", finished, broken)
    assert alone.code == 1 and "Traceback" not in alone.err


def test_several_runs_are_an_ensemble(finished, photographs_folder, verb, tmp_path):
    files, last = sorted(photographs_folder.glob("cat/*.png")), finished / "checkpoints" / "last.ckpt"
    verb("predict", finished, last, *files, "--out", tmp_path / "both.csv")
    single = [load(path).predict(files).probabilities for path in (finished, last)]
    found = np.array([[float(row["p:cat"]), float(row["p:dog"])] for row in rows_of(tmp_path / "both.csv")])
    np.testing.assert_allclose(found, np.mean(single, axis=0), atol=1e-6)
    assert np.abs(single[0] - single[1]).max() > 0


def test_flip_is_named_in_what_is_written(finished, photographs_folder, verb, tmp_path):
    files = sorted(str(path) for path in photographs_folder.glob("cat/*.png"))[:3]
    expected = load(finished).predict(files, tta="flip").probabilities
    for suffix in ("csv", "jsonl"):
        out = tmp_path / f"p.{suffix}"
        output = verb("predict", finished, *files, "--tta", "flip", "--out", out)
        assert output.code == 0 and output.out.startswith("3 images (test-time augmentation: flip): cat ")
        rows = rows_of(out) if suffix == "csv" else [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["tta"] for row in rows] == ["flip"] * 3
        np.testing.assert_allclose([float(row["p:cat"]) for row in rows], expected[:, 0], atol=1e-6)
    header = verb("predict", finished, *files, "--tta", "flip").out.splitlines()[0]
    assert header.split() == ["file", "class", "probability", "(flip)"]


def test_explanations_are_images_of_the_predicted_classes(finished, photographs_folder, verb, tmp_path):
    files = [photographs_folder / "cat" / "0.png", photographs_folder / "cat" / "2.png"]
    predicted = load(finished).predict(files).classes
    assert verb("predict", finished, *files, "--explain", tmp_path / "maps").code == 0
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        f"00001-0-{predicted[0]}.png",
        f"00002-2-{predicted[1]}.png",
    ]
    assert all(Image.open(path).size == (320, 320) for path in (tmp_path / "maps").iterdir())
    refused = verb("predict", finished, *files, "--explain", tmp_path / "maps")
    assert refused.code == 1 and f"{tmp_path}/maps: exists already" in refused.err


def test_what_was_done_is_kept_after_an_interrupt(finished, photographs_folder, verb, tmp_path, monkeypatch):
    files = sorted(map(str, photographs_folder.rglob("*.png")))[:10]
    monkeypatch.setattr(inference, "CHUNK", 4)
    compute, calls = inference.Inference.probabilities, []

    def interrupted(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(self, pixels)

    monkeypatch.setattr(inference.Inference, "probabilities", interrupted)
    output = verb("predict", finished, *files, "--out", tmp_path / "p.csv")
    assert output.code == 130 and "interrupted: 8 of 10 images were classified" in output.err
    assert [row["file"] for row in rows_of(tmp_path / "p.csv")] == files[:8]


def test_an_interrupt_before_the_first_images_keeps_the_old_file(
    finished, photographs_folder, verb, tmp_path, monkeypatch
):
    (tmp_path / "p.csv").write_text("the results of hours")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference.Inference, "probabilities", interrupted)
    output = verb("predict", finished, photographs_folder, "--out", tmp_path / "p.csv", "--overwrite")
    assert output.code == 130 and (tmp_path / "p.csv").read_text() == "the results of hours"


def test_tables_of_the_run_are_not_replaced(finished, photographs_folder, verb):
    tables = {path: path.read_bytes() for path in finished.glob("*.csv")}
    assert {path.name for path in tables} >= {"split.csv", "epochs.csv", "predictions.csv"}
    for path in tables:
        output = verb("predict", finished, photographs_folder, "--out", path, "--overwrite")
        reason = f"{path.name} is a file of the run in this folder. Choose another name with --out."
        assert output.code == 1 and output.err.splitlines()[-1] == f"transfer-learning: {path}: {reason}"
    assert {path: path.read_bytes() for path in tables} == tables


def test_options_may_stand_between_the_other_arguments(finished, photographs_folder, verb, tmp_path):
    first, second = sorted(map(str, photographs_folder.glob("cat/*.png")))[:2]
    output = verb("predict", finished, first, "--tta", "flip", second, "--out", tmp_path / "p.csv")
    assert output.code == 0 and [row["file"] for row in rows_of(tmp_path / "p.csv")] == [first, second], output.err
    output = verb("evaluate", finished, "--tta", "flip", photographs_folder, "--out", tmp_path / "e")
    assert output.code == 0 and (tmp_path / "e" / "evaluation.json").exists(), output.err


def test_the_command_in_a_process_of_its_own(finished, photographs_folder, in_another_process, tmp_path):
    """As `python -m transfer_learning`."""
    process = in_another_process("predict", finished, photographs_folder, "--out", tmp_path / "p.csv")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith("32 images: ") and len(rows_of(tmp_path / "p.csv")) == 32


@needs_pipes
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("RUN RUN", "no images after RUN, which is a run by its checkpoints/ or metrics.json; expected RUN, more runs"),
        ("RUN TAKEN", "no images after TAKEN, which is a run by its checkpoints/ or metrics.json; expected RUN, more"),
        ("RUN IMAGE UNFINISHED", "UNFINISHED: a run after images; expected "),
        ("FAILED IMAGE", "FAILED: this run failed (the disk is full). Resume it, or correct the cause and start"),
        ("SEVERAL IMAGE", "SEVERAL: a folder of runs, such as SEVERAL/"),
        ("EMPTY IMAGE", "EMPTY: not a run; expected the folder of a run"),
        ("NOWHERE IMAGE", "NOWHERE: no such run; expected the folder of a run"),
        ("IMAGE IMAGE", "IMAGE: not a checkpoint of this project, or damaged"),
        ("UNFINISHED IMAGE", "UNFINISHED: this run has not finished. Resume it, or name one of its checkpoints"),
        ("RUN NOWHERE", "NOWHERE: no such file or folder; expected images"),
        ("RUN EMPTY", "EMPTY: no images there; expected images"),
        ("RUN PIPE", "PIPE: a pipe, a socket or a device; expected an image."),
        ("RUN IMAGE --out EMPTY", "--out EMPTY: expected a name that ends in .csv or .jsonl."),
        ("RUN IMAGE --out IMAGE --overwrite", "--out IMAGE: expected a name that ends in .csv or .jsonl."),
        ("RUN IMAGE --out NOWHERE/x.csv", "NOWHERE/x.csv: there is no folder NOWHERE."),
        (
            "RUN IMAGE --explain IMAGE --overwrite",
            "IMAGE: exists already, as another kind of file. Choose another name with --explain.",
        ),
        ("RUN IMAGE --out x.txt", "--out x.txt: expected a name that ends in .csv or .jsonl."),
        ("RUN IMAGE --out IMAGE/x.csv", "IMAGE/x.csv: there is no folder IMAGE."),
        ("RUN IMAGE --top 0", "--top 0: expected 1 or more."),
        ("RUN IMAGE --accelerator tpus", "--accelerator tpus: no such accelerator; expected"),
        ("RUN RUN IMAGE --explain maps", "--explain: expected one run"),
    ],
)
def test_mistake_is_one_line(finished, photographs_folder, verb, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    shutil.copytree(finished, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "metrics.json").unlink()
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "FAILED").write_text("the disk is full\n")
    names = {"RUN": finished, "IMAGE": photographs_folder / "cat" / "0.png", "NOWHERE": tmp_path / "nowhere"}
    (tmp_path / "taken" / "checkpoints").mkdir(parents=True)
    names |= {"TAKEN": tmp_path / "taken", "EMPTY": tmp_path / "empty", "UNFINISHED": tmp_path / "unfinished"}
    names |= {"FAILED": tmp_path / "failed", "SEVERAL": tmp_path, "PIPE": tmp_path / "pipe"}

    def filled(text):
        for name, path in names.items():
            text = (
                text.replace(name, str(path))
                if name != "RUN"
                else " ".join(str(path) if word == "RUN" else word for word in text.split(" "))
            )
        return text

    output = verb("predict", *filled(arguments).split())
    expected = filled(message).replace(f"expected {finished},", "expected RUN,")
    expected = expected.replace("after RUN,", f"after {finished},")
    assert output.code == 1 and output.out == ""
    assert [line for line in output.err.splitlines() if line.startswith("transfer-learning: ")] == [
        output.err.splitlines()[-1]
    ]
    assert output.err.splitlines()[-1].startswith(f"transfer-learning: {expected}") and "Traceback" not in output.err


@needs_linux_names
def test_file_names_that_are_not_unicode(finished, photographs_folder, verb, tmp_path):
    strange = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(photographs_folder / "cat" / "0.png", os.fsdecode(strange))
    output = verb(
        "predict", finished, os.fsdecode(strange), "--out", tmp_path / "p.csv", "--explain", tmp_path / "maps"
    )
    assert output.code == 0, output.err
    assert rows_of(tmp_path / "p.csv")[0]["file"] == f"{tmp_path}/caf\\udce9.png"
    assert "caf\\udce9" in verb("predict", finished, os.fsdecode(strange)).out


@pytest.mark.parametrize("stem", ["猫" * 64, "x" * 250, "é" * 100 + "\u202e"])
def test_long_names_are_cut(photographs_folder, run_folder, verb, tmp_path, stem):
    strange = tmp_path / f"{stem}.png"
    shutil.copy(photographs_folder / "cat" / "0.png", strange)
    model = load(run_folder)
    model.class_names = ("猫" * 80, "犬" * 80)
    result = Result([str(strange)], np.array([[1.0, 0.0]]), model.class_names, False)
    write_explanations(model, result, tmp_path / "maps")
    (path,) = (tmp_path / "maps").iterdir()
    assert path.name.startswith(f"00001-{stem[0]}") and "猫.png" in path.name


def test_of_many_classes_the_most_frequent_ones_are_counted():
    names = tuple(f"class {n}" for n in range(1000))
    probabilities = np.eye(1000)[[7] * 5 + [3] * 2 + [999]]
    text = summary(Result([f"{n}.png" for n in range(8)], probabilities, names, False))
    assert text.startswith("8 images: class 7 5, class 3 2, class 999 1, ") and text.endswith(" and 990 more")
    assert summary(Result(["a", "b"], np.eye(2), ("cat", "dog"), False)) == "2 images: cat 1, dog 1"
