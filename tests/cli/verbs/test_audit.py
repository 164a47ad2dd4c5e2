import csv
import subprocess
import sys

import pytest
from PIL import Image

from transfer_learning.data.sources.cartoons import cartoon

MODEL = ["model=pretrained", "model.backbone=resnet18", "model.weights=null", "data.image_size=32"]
SETTINGS = [*MODEL, "trainer=cpu", "trainer.precision=32-true"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve cats and twelve dogs, and a smaller copy of one."""
    folder = tmp_path_factory.mktemp("audit") / "photos"
    for number in range(24):
        path = folder / ("dog" if number % 2 else "cat") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cartoon(number % 2, f"audit {number}").resize((64, 64)).save(path)
    with Image.open(folder / "dog" / "5.png") as image:
        image.resize((48, 48)).save(folder / "dog" / "smaller.png")
    return folder


@pytest.fixture
def settings(photos, tmp_path):
    return ["data=image_folder", f"data.root={photos}", f"data.cache_dir={tmp_path}/cache", *SETTINGS]


@pytest.fixture
def trained(settings, tmp_path, in_process):
    """The folder of a run whose model has a frozen part. Its name looks like a setting, as those of a sweep do."""
    folder = tmp_path / "seed=3"
    arguments = ["seed=3", "data.batch_size=6", "trainer.max_epochs=1", "logger=none", "callbacks=none"]
    code, output = in_process(*settings, *arguments, f"hydra.run.dir='{folder}'")
    assert code == 0, output
    return folder


def rows(folder):
    with open(folder / "audit.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_run_is_audited_from_its_stored_features_and_its_copy_excluded(
    trained, settings, verb, in_process, tmp_path, caplog
):
    with caplog.at_level("INFO"):
        output = verb("audit", trained)
    assert output.code == 0, output.err
    (line,) = [message for message in caplog.messages if "features-" in message]
    assert "25 rows found;" in line
    assert "Near-duplicates" in output.out and "PNG 25" in output.out and "Tip" not in output.err
    assert output.out.splitlines()[-3] == str(trained / "audit" / "audit.html")
    assert f"exclude: \"data.exclude='{trained}/audit/audit.csv'\" leaves" in output.out  # as it can be typed
    (pair,) = [row for row in rows(trained / "audit") if row["finding"] == "near-duplicate"]
    assert {pair["file"].rpartition("/")[2], pair["other_file"].rpartition("/")[2]} == {"5.png", "smaller.png"}
    with open(trained / "split.csv", newline="") as file:
        splits = {row["sha256"]: row["split"] for row in csv.DictReader(file)}
    assert splits[pair["sha256"]] == pair["split"]

    table = trained / "audit" / "audit.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join("x" + line if "near-duplicate" in line else line for line in lines))
    again = tmp_path / "again"
    arguments = ["data.batch_size=6", "trainer.max_epochs=1", "logger=none", "callbacks=none"]
    code, log = in_process(*settings, *arguments, f"hydra.run.dir={again}", f"data.exclude='{table}'")
    assert code == 0, log
    assert f"left out, excluded by {table}: 1 ({pair['file']})" in log
    assert pair["sha256"] not in (again / "split.csv").read_text()
    output = verb("audit", again)
    assert output.code == 0 and not [row for row in rows(again / "audit") if row["finding"] == "near-duplicate"]


def test_settings_are_audited_before_any_training(settings, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = verb("audit", "data.seed=1", *settings, "data.seed=0", "--top", "0")
    assert output.code == 0, output.err
    assert "data.seed=1 data.seed=0: data.seed is given 2 times; the last one counts." in output.err
    assert len([row for row in rows(tmp_path / "audit") if row["finding"] == "near-duplicate"]) == 1
    assert "<img" not in (tmp_path / "audit" / "audit.html").read_text()
    table = (tmp_path / "audit" / "audit.csv").read_text()
    output = verb("audit", *settings)
    assert output.code == 1 and output.err.splitlines()[-1] == (
        "transfer-learning: audit: exists already. Choose another name with --out, or add --overwrite."
    )
    assert verb("audit", *settings, "--overwrite").code == 0
    assert (tmp_path / "audit" / "audit.csv").read_text() == table
    assert "<img" in (tmp_path / "audit" / "audit.html").read_text()


def test_images_too_few_to_be_split_are_audited(verb, tmp_path, write_image):
    for seed in range(3):
        write_image(tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.png", seed)
    settings = ["data=image_folder", f"data.root={tmp_path}/photos", f"data.cache_dir={tmp_path}/cache", *SETTINGS]
    output = verb("audit", *settings, "--out", tmp_path / "found")
    assert output.code == 0, output.err
    assert "PNG 3" in output.out and (tmp_path / "found" / "audit.csv").is_file()
    (tmp_path / "photos" / "b" / "1.png").write_bytes((tmp_path / "photos" / "a" / "0.png").read_bytes())
    (tmp_path / "photos" / "a" / "2.png").unlink()
    output = verb("audit", *settings, "--out", tmp_path / "none")
    assert output.code == 1 and output.err.splitlines()[-1].startswith("transfer-learning: data.val_per_class=0.2: ")


HINT = "Without data=image_folder (or data=table), the images are those of Dogs vs Cats."


def test_a_root_without_data_is_answered_with_what_it_is_taken_for(photos, verb, tmp_path):
    where = [f"data.cache_dir={tmp_path}/cache", *SETTINGS, "--overwrite", "--out", tmp_path / "results"]
    output = verb("audit", f"data.root={photos}", *where)  # it has cats and dogs
    assert output.code == 0 and output.err.splitlines().count(HINT) == 1
    for data in ([], ["data=image_folder"], ["data=dogs_vs_cats"]):
        output = verb("audit", *data, f"data.root={photos}/cat", *where)
        assert output.code == 1 and f"data.root={photos}/cat: classes found: " in output.err
        assert output.err.count(HINT) == (not data) and output.err.endswith(f" {HINT}\n") == (not data)


def test_relative_paths_mean_what_they_mean_in_the_shell(photos, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    settings = ["data=image_folder", "data.root=photos", f"data.cache_dir={tmp_path}/cache", *SETTINGS]
    output = verb("audit", *settings, "--out", tmp_path / "found")
    assert output.code == 0, output.err
    assert all(row["file"].startswith(f"{photos}/") for row in rows(tmp_path / "found"))


def test_the_model_is_vgg16_if_none_is_named(photos, verb, tmp_path):
    settings = ["data=image_folder", f"data.root={photos}", f"data.cache_dir={tmp_path}", "model.weights=null"]
    output = verb("audit", *settings, "data.image_size=32", "trainer=cpu", "--out", tmp_path / "found")
    assert output.code == 0, output.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "nothing: not the folder of a run, which has config.yaml."),
        (["a", "b"], "a: expected one RUN, or settings alone, such as data=image_folder data.root=FOLDER."),
        (["data=image_folder", "a"], "a: expected one RUN, or settings alone"),
        (["data=image_folder", "model.weights=null"], "data.root: has no value; give it one, data.root=..."),
        (["data=image_folder", "data.root=nothing", *SETTINGS], "data.root="),
        (["data=cartoons", "data.exclude=nothing.csv", *SETTINGS], "data.exclude="),
        (["data=nothing"], "data=nothing: there is no such file in conf/data/; expected one of cartoons, "),
        (["data=cartoons", "+nothing=1"], "+nothing=1: nothing reads nothing"),
        (["data=cartoons", "data.nothing=1"], "data.nothing: there is no such key in the config; expected one of "),
        (["data=cartoons", *SETTINGS, "--accelerator", "abacus"], "--accelerator abacus: "),
        (["data=cartoons", *SETTINGS, "--accelerator", "mps"], "--accelerator mps: "),
        (["data=cartoons", *SETTINGS, "trainer.accelerator=abacus"], "trainer.accelerator=abacus: "),
        (["resume=outputs/a run"], "resume=outputs/a run: expected the run alone: audit 'outputs/a run'"),
        (["data=cartoons", "rerun=run"], "rerun=run: expected the run alone: audit run"),
        (["data=cartoons", "--top", "-1"], "--top -1: expected 0 or more."),
    ],
)
def test_mistakes_are_one_line(verb, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    sizes = [f"data.{split}_per_class=3" for split in ("train", "val", "test")]
    sizes = [*sizes, f"data.cache_dir={tmp_path}/cache"] if "data=cartoons" in arguments else []
    output = verb("audit", *sizes, *arguments)
    assert output.code == 1 and "Traceback" not in output.err and not (tmp_path / "audit").exists()
    assert output.err.splitlines()[-1].startswith(f"transfer-learning: {message}"), output.err


def test_model_without_a_frozen_part(finished, verb):
    output = verb("audit", finished)
    assert output.code == 1 and output.err.splitlines()[-1] == (
        "transfer-learning: CNN: has no frozen layers, whose features an audit compares. "
        "Audit the data with another model: data=... model=vgg16_frozen"
    )


@pytest.mark.parametrize(
    "model, message",
    [
        (["model=basic_cnn"], "CNN: has no frozen layers"),
        ([*MODEL, "model.weights=nothing.pth"], "model.weights="),
        (["model=vgg16_frozen", "model.weights=nothing.pth"], "model.weights="),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_before_images_are_decoded(photos, verb, tmp_path, model, message):
    where = ["data=image_folder", f"data.root={photos}", f"data.cache_dir={tmp_path}/cache", "trainer=cpu"]
    output = verb("audit", *where, *model)
    assert output.code == 1 and output.err.splitlines()[-1].startswith(f"transfer-learning: {message}")
    assert not list(tmp_path.glob("cache/*.rows"))


def test_images_that_have_changed_since_the_run_are_refused(trained, verb):
    lines = (trained / "split.csv").read_text().splitlines()
    (trained / "split.csv").write_text("\n".join(lines[:-1]) + "\n")
    output = verb("audit", trained)
    assert output.code == 1 and "this run began with other images (1 differ)" in output.err.splitlines()[-1]


def test_nothing_is_left_if_the_results_cannot_be_written(settings, verb, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfer_learning.reporting.audit.write_audit_page", fail)
    output = verb("audit", *settings, "--out", tmp_path / "found")
    assert output.code == 1 and "No space left on device" in output.err and not (tmp_path / "found").exists()
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "audit.csv").write_text("filled in")
    output = verb("audit", *settings, "--out", tmp_path / "found", "--overwrite")
    assert output.code == 1 and [path.name for path in (tmp_path / "found").iterdir()] == ["audit.csv"]
    assert (tmp_path / "found" / "audit.csv").read_text() == "filled in"


@pytest.mark.slow
def test_neither_help_nor_a_training_waits_for_scikit_learn():
    code = "import sys; from transfer_learning.cli import main; main.parser(); import transfer_learning.engine.audit; "
    code += "assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_pictures_that_were_scaled_and_saved_anew_are_found(field_cases, verb, tmp_path):
    data = ["data=image_folder", f"data.root={field_cases}/near-duplicates", f"data.cache_dir={tmp_path}/cache"]
    output = verb("audit", *data, *SETTINGS, "--out", tmp_path / "found")
    assert output.code == 0, output.err
    pairs = [row for row in rows(tmp_path / "found") if row["finding"] == "near-duplicate"]
    names = {frozenset(row[key].rpartition("near-duplicates/")[2] for key in ("file", "other_file")) for row in pairs}
    assert names == {frozenset((f"{label}/{n}.jpg", f"{label}/again-{n}.jpg")) for label in "pq" for n in range(6)}
