"""Folders as users have them, through the config that `data=image_folder` and `data=table` compose.

Each kind has a case of `../shared/field-cases/make.py`, where it is present, and others that are made here.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import needs_pipes
from transfer_learning.utilities.errors import UserError


@pytest.fixture
def write(tmp_path):
    """write(*patterns): a folder with an image, of its own bytes, for each `path:count`, such as `train/x/N.png:5`."""

    def make(*patterns, root="root"):
        number = 0
        for pattern in patterns:
            name, _, count = pattern.partition(":")
            for index in range(int(count or 1)):
                path = tmp_path / root / name.replace("N", str(index))
                path.parent.mkdir(parents=True, exist_ok=True)
                number += 1
                values = np.random.default_rng(number).integers(0, 256, (12, 14, 3), dtype=np.uint8)
                Image.fromarray(values).save(path)
        return tmp_path / root

    return make


@pytest.fixture
def data(tmp_path, composed_data):
    """data(*overrides): the data module of these overrides, set up."""

    def make(*overrides):
        size = [] if any("image_size" in each for each in overrides) else ["data.image_size=8"]
        module = composed_data(*overrides, *size, "data.batch_size=2", f"data.cache_dir={tmp_path}/cache")
        module.setup()
        return module

    return make


def counts(data):
    """Images of each class in each split."""
    return {
        split: dict(zip(data.class_names, np.bincount(data.labels[rows], minlength=len(data.class_names)).tolist()))
        for split, rows in data.splits.items()
    }


def check_labels(data, class_of=lambda path: path.parent.name):
    """Each image has the class and the pixels of its file."""
    for name, label, row in zip(data.images.names, data.labels, data.pixels):
        assert data.class_names[label] == class_of(Path(name)), name
        with Image.open(name) as image:
            expected = image.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
        assert np.array_equal(row, expected)


def splits_of_files(data):
    """The split of each file that is in one, by its path relative to the root's parent."""
    return {data.images.names[row]: split for split, rows in data.splits.items() for row in rows}


# ready-made splits


def test_ready_made_splits(field_cases, data):
    module = data("data=image_folder", f"data.root={field_cases}/ready-made")
    assert counts(module) == {"train": {"x": 20, "y": 20}, "val": {"x": 6, "y": 6}, "test": {"x": 6, "y": 6}}
    assert all(Path(name).parts[-3] == split for name, split in splits_of_files(module).items())
    check_labels(module)


def test_train_and_test(field_cases, data):
    module = data("data=image_folder", f"data.root={field_cases}/train-and-test", "data.val_per_class=4")
    assert counts(module) == {"train": {"x": 16, "y": 16}, "val": {"x": 4, "y": 4}, "test": {"x": 6, "y": 6}}
    assert all((Path(name).parts[-3] == "test") == (split == "test") for name, split in splits_of_files(module).items())


@pytest.mark.parametrize(
    "files, expected",
    [
        (["training/x/N.png:6", "valid/x/N.png:2", "testing/x/N.png:3", "training/y/N.png:5", "valid/y/N.png:2"], None),
        (["a/b/train/x/N.png:6", "a/b/validation/x/N.png:2", "a/b/test/x/N.png:3", "a/b/train/y/N.png:5"], None),
        (["x/train/N.png:6", "x/val/N.png:2", "x/test/N.png:3", "y/train/N.png:5", "y/val/N.png:2"], None),
        (["train/x.N.png:6", "val/x.N.png:2", "test/x.N.png:3", "train/y.1N.png:5", "val/y.1N.png:2"], None),
    ],
)
def test_other_ready_made_splits(write, data, files, expected):
    module = data("data=image_folder", f"data.root={write(*files)}")
    found = counts(module)
    assert (found["train"], found["val"]["x"], found["test"]) == ({"x": 6, "y": 5}, 2, {"x": 3, "y": 0})


def test_validation_without_test_and_both_splits_anew(write, data, capsys):
    root = write("train/x/N.png:10", "train/y/N.png:10", "validation/x/N.png:4", "validation/y/N.png:4")
    module = data("data=image_folder", f"data.root={root}", "data.test_per_class=3")
    assert counts(module) == {"train": {"x": 7, "y": 7}, "val": {"x": 4, "y": 4}, "test": {"x": 3, "y": 3}}
    anew = data(
        "data=image_folder",
        f"data.root={root}",
        "data/split=per_class",
        "data.val_per_class=2",
        "data.test_per_class=3",
    )
    assert counts(anew) == {"train": {"x": 9, "y": 9}, "val": {"x": 2, "y": 2}, "test": {"x": 3, "y": 3}}
    with pytest.raises(UserError, match="no splits are given"):
        data("data=image_folder", f"data.root={root}/train", "data/split=folders")


def test_copies_across_given_splits_are_dropped_from_training_and_named(write, data, caplog):
    root = write(
        "train/x/N.png:6", "train/y/N.png:6", "val/x/N.png:2", "val/y/N.png:2", "test/x/N.png:2", "test/y/N.png:2"
    )
    copies = {"train/x/copy.png": "test/x/0.png", "train/y/copy.png": "test/x/1.png", "val/x/copy.png": "test/y/0.png"}
    copies |= {"train/x/copy2.png": "val/x/1.png"}
    for copy, original in copies.items():
        (root / copy).write_bytes((root / original).read_bytes())
    with caplog.at_level("INFO"):
        module = data("data=image_folder", f"data.root={root}")
    assert counts(module) == {"train": {"x": 6, "y": 6}, "val": {"x": 2, "y": 2}, "test": {"x": 2, "y": 2}}
    assert not any("copy" in name for name in splits_of_files(module))
    assert f"left out, the same bytes as a test image: 3 ({root}/train/x/copy.png ({root}/test/x/0.png)," in caplog.text
    kept = data("data=image_folder", f"data.root={root}", "data.drop_duplicates=false")
    assert counts(kept)["train"] == {"x": 8, "y": 7}


def test_a_training_split_of_copies_is_an_error_and_not_split_anew(write, data, caplog):
    root = write("test/x/N.png:6", "test/y/N.png:6", "val/x/N.png:2", "val/y/N.png:2")
    for label in "xy":
        (root / "train" / label).mkdir(parents=True)
        for number in range(6):
            (root / "train" / label / f"{number}.png").write_bytes(
                (root / "test" / label / f"{number}.png").read_bytes()
            )
    with caplog.at_level("INFO"), pytest.raises(UserError, match="all train images are left out"):
        data("data=image_folder", f"data.root={root}")
    assert "left out, the same bytes as a test image: 12 (" in caplog.text


def test_class_folders_beside_a_test_folder_are_training_images(write, data):
    root = write("x/N.png:10", "y/N.png:10", "test/x/N.png:3", "test/y/N.png:3")
    module = data("data=image_folder", f"data.root={root}")
    assert counts(module) == {"train": {"x": 8, "y": 8}, "val": {"x": 2, "y": 2}, "test": {"x": 3, "y": 3}}
    assert all(("/test/" in name) == (split == "test") for name, split in splits_of_files(module).items())


def test_a_class_of_the_test_split_alone_is_said(write, data, caplog):
    root = write(
        *(f"{split}/{label}/N.png:4" for split in ("train", "val", "test") for label in "xy"), "test/z/N.png:2"
    )
    with caplog.at_level("INFO"):
        module = data("data=image_folder", f"data.root={root}")
    assert counts(module)["test"] == {"x": 4, "y": 4, "z": 2}
    assert "no train images of z" in caplog.messages and "no val images of z" in caplog.messages


# tables


def test_table_of_a_flat_folder(field_cases, data):
    table = f"{field_cases}/table/labels.csv"
    columns = ["data.file_column=id", "data.label_column=breed"]
    module = data("data=table", f"data.table={table}", f"data.root={field_cases}/table/images", *columns)
    assert counts(module) == {
        "train": {"boxer": 12, "pug": 12}, "val": {"boxer": 4, "pug": 4}, "test": {"boxer": 4, "pug": 4}
    }  # fmt: skip
    check_labels(module, lambda path: ["boxer", "pug"][int(path.stem, 16) % 2])


def test_tables_with_splits_missing_files_and_rows_without_a_class(write, data, tmp_path, caplog):
    root = write("part1/N.png:8", "part2/1N.png:8", "extra.png")
    rows = ["image\tlabel\tset"] + [f"{n}\t{'ab'[n % 2]}\ttraining" for n in range(8)]
    rows += [f"1{n}.png\t{'ab'[n % 2]}\t{'valid' if n < 4 else 'test'}" for n in range(7)] + [
        "17\t\ttest",
        "99\ta\ttrain",
    ]
    (tmp_path / "labels.tsv").write_text("\n".join(rows))
    columns = ["data.file_column=image", "data.label_column=label", "data.split_column=set"]
    with caplog.at_level("INFO"):
        module = data("data=table", f"data.table={tmp_path}/labels.tsv", f"data.root={root}", *columns)
    assert counts(module) == {"train": {"a": 4, "b": 4}, "val": {"a": 2, "b": 2}, "test": {"a": 2, "b": 1}}
    assert "left out, without a row in the table: 1 (extra.png)" in caplog.text
    assert "left out, without a class in the table: 1 (part2/17.png)" in caplog.text
    assert f"left out, in the table, but not in {root}: 1 (99 in line 18)" in caplog.text
    assert "given splits: train 8, val 4, test 3 images; they are kept" in caplog.text


# groups


def group_splits(data):
    found = {}
    for split, rows in data.splits.items():
        for row in rows:
            found.setdefault(data.images.groups[row], set()).add(split)
    return found


def test_groups_of_a_table(field_cases, data):
    columns = ["data.file_column=file", "data.label_column=label", "data.group_column=patient"]
    module = data("data=table", f"data.table={field_cases}/groups/labels.csv", *columns)
    assert counts(module) == {
        "train": {"ill": 18, "well": 18}, "val": {"ill": 6, "well": 6}, "test": {"ill": 6, "well": 6}
    }  # fmt: skip
    assert len(group_splits(module)) == 20 and {len(splits) for splits in group_splits(module).values()} == {1}
    check_labels(module, lambda path: ["ill", "well"][int(path.stem) // 3 % 2])


@pytest.mark.parametrize("pattern", [r"(P\d+)_.*", r"P\d+", r"(?P<patient>[A-Z]\d)_"])
def test_groups_in_names_of_files(write, data, pattern):
    root = write(*(f"{'xy'[n % 2]}/P{n}_N.png:{3 + n % 3}" for n in range(10)))
    module = data("data=image_folder", f"data.root={root}", f"'data.group_pattern=\"{pattern}\"'".strip("'"))
    assert len(group_splits(module)) == 10 and {len(splits) for splits in group_splits(module).values()} == {1}
    total = sum(map(len, module.splits.values()))
    assert total == 39 and abs(len(module.splits["train"]) - 0.6 * 39) < 5


def test_groups_with_images_of_both_classes_and_folds(write, data):
    root = write(*(f"{label}/P{n}_N.png:2" for label in "xy" for n in range(12)))
    seen = Counter()
    for fold in range(3):
        overrides = ["data.folds=3", f"data.fold={fold}", r'data.group_pattern="(P\d+)_"']
        module = data("data=image_folder", f"data.root={root}", *overrides)
        assert {len(splits) for splits in group_splits(module).values()} == {1}
        seen.update(module.splits["val"].tolist())
        test = set(module.splits["test"].tolist())
    assert set(seen.values()) == {1} and not set(seen) & test and len(seen) + len(test) == 48


# classes


def test_letters_in_both_cases(field_cases, data):
    module = data("data=image_folder", f"data.root={field_cases}/letters")
    assert module.class_names == ("A", "a", "B", "b")
    assert np.bincount(module.labels).tolist() == [12] * 4
    check_labels(module)


def test_case_of_letters_across_splits_and_beside_each_other(write, data):
    root = write("train/Cat/N.png:6", "train/dog/N.png:6", "test/cat/N.png:2", "test/Dog/N.png:2")
    module = data("data=image_folder", f"data.root={root}", "data.val_per_class=1")
    assert counts(module)["test"] == {"cat": 2, "Dog": 2} and module.class_names == ("cat", "Dog")
    root = write(
        *(f"{split}/{name}/N.png:3" for split in ("train", "val", "test") for name in ("é", "É", "a")), root="two"
    )
    module = data("data=image_folder", f"data.root={root}")
    assert sorted(module.class_names) == sorted(("É", "é", "a")) and set(
        map(tuple, map(dict.values, counts(module).values()))
    ) == {(3, 3, 3)}
    check_labels(module)


def test_vehicles(field_cases, data):
    module = data("data=image_folder", f"data.root={field_cases}/vehicles")
    assert module.class_names == ("bus", "car", "train") and np.bincount(module.labels).tolist() == [12] * 3
    check_labels(module)


@pytest.mark.parametrize(
    "files, classes",
    [
        (["rose/N.png:5", "test/N.png:5"], ("rose", "test")),
        (["a/rose/N.png:5", "a/Validation/N.png:5", "a/tulip/N.png:5"], ("rose", "tulip", "Validation")),
        (["train/bus/N.png:3", "train/train/N.png:3", "test/bus/N.png:3", "test/train/N.png:3"], ("bus", "train")),
    ],
)
def test_other_classes_that_are_called_like_a_split(write, data, files, classes):
    module = data("data=image_folder", f"data.root={write(*files)}", "data.val_per_class=1", "data.test_per_class=1")
    assert module.class_names == classes
    check_labels(module)


def test_two_folders_called_like_splits_beside_a_class_stop_the_run(write, data):
    root = write("bus/N.png:5", "train/N.png:5", "test/N.png:5")
    with pytest.raises(UserError, match="root=.*test and train beside bus may be a split or a class"):
        data("data=image_folder", f"data.root={root}")
    module = data("data=image_folder", f"data.root={root}", "data.classes=[train,bus]")
    assert module.class_names == ("train", "bus") and np.bincount(module.labels).tolist() == [5, 5]


# links


def test_links_to_a_folder_above(field_cases, data):
    module = data("data=image_folder", f"data.root={field_cases}/links")
    assert module.class_names == ("cats", "dogs") and np.bincount(module.labels).tolist() == [12, 12]
    check_labels(module)


@pytest.mark.parametrize(
    "links",
    [
        {"cat/self": ".", "dog/self": "."},
        {"all": "."},
        {"dog/cats": "../cat", "cat/dogs": "../dog"},
        {"a cat": "cat"},
    ],
)
def test_other_links_between_folders(write, data, links):
    root = write("cat/N.png:6", "dog/N.png:6")
    for link, target in links.items():
        (root / link).symlink_to(target)
    module = data("data=image_folder", f"data.root={root}")
    assert module.class_names == ("cat", "dog") and np.bincount(module.labels).tolist() == [6, 6]
    check_labels(module)


def test_class_folders_that_are_links_to_elsewhere(write, data, tmp_path):
    write("c/N.png:6", "d/N.png:6", root="store")
    (tmp_path / "root").mkdir()
    for name, target in (("cat", "c"), ("dog", "d")):
        (tmp_path / "root" / name).symlink_to(tmp_path / "store" / target)
    module = data("data=image_folder", f"data.root={tmp_path}/root")
    assert module.class_names == ("cat", "dog") and np.bincount(module.labels).tolist() == [6, 6]


@needs_pipes
def test_files_that_are_pipes_do_not_stop_it(write, data):
    root = write("cat/N.png:6", "dog/N.png:6")
    os.mkfifo(root / "cat" / "pipe.png")
    assert len(data("data=image_folder", f"data.root={root}").labels) == 12


# images with more than 8 bits per channel


def test_twelve_bits_in_sixteen(field_cases, data):
    root = f"data.root={field_cases}/microscope"
    with pytest.raises(UserError, match="values from 0 to 4,095, where the full range is 0 to 65,535.*depth=image"):
        data("data=image_folder", root, "data.image_size=40")
    module = data("data=image_folder", root, "data.image_size=40", "data.depth=image")
    assert np.bincount(module.labels).tolist() == [12, 12] and len(module.pixels) == 24
    for name, row in zip(module.images.names, module.pixels):
        with Image.open(name) as image:
            values = np.asarray(image).astype(float)
        stretched = (values - values.min()) / (values.max() - values.min()) * 255
        assert np.abs(row - stretched[..., None]).max() < 2 and (row.min(), row.max()) == (0, 255)
    dark = data("data=image_folder", root, "data.image_size=40", "data.depth=dtype")
    assert dark.pixels.max() == 15  # 4,095 // 256


@pytest.mark.parametrize(
    "suffix, make",
    [
        ("tif", lambda values: Image.fromarray(values.astype(np.float32) * 255)),
        ("tif", lambda values: Image.fromarray((values * 4000).astype(np.int32))),
        ("tif", lambda values: Image.fromarray((values * 4000).astype(np.uint16))),
        ("tif", lambda values: Image.fromarray(values.astype(np.float32) / 10)),
    ],
)
def test_other_deep_images_that_use_little_of_their_range(tmp_path, data, suffix, make):
    for seed in range(12):
        path = tmp_path / "root" / "pq"[seed % 2] / f"{seed}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        make(np.random.default_rng(seed).random((40, 40))).save(path)
    root = f"data.root={tmp_path}/root"
    with pytest.raises(UserError, match="where the full range is .*depth=image"):
        data("data=image_folder", root, "data.image_size=40")
    pixels = data("data=image_folder", root, "data.image_size=40", "data.depth=image").pixels
    assert pixels.shape == (12, 40, 40, 3) and {(row.min(), row.max()) for row in pixels} == {(0, 255)}


# classes of different sizes


def test_few_of_one_class(field_cases, data):
    module = data("data=image_folder", f"data.root={field_cases}/unbalanced", "data.balance=sampler")
    assert counts(module)["train"] == {"common": 120, "rare": 7}
    drawn = np.concatenate([module.labels[module.splits["train"]][module.draw(epoch)] for epoch in range(20)])
    assert 0.45 < drawn.mean() < 0.55


# many files


def test_many_classes_are_a_few_lines(write, data, caplog):
    root = write(*(f"class {n:04d}/N.png:3" for n in range(300)), "class 0000/notes.txt.png")
    for number in range(300):
        (root / f"class {number:04d}" / "notes.txt").write_text("no image")
    with caplog.at_level("INFO"):
        module = data("data=image_folder", f"data.root={root}", "data.val_per_class=1", "data.test_per_class=1")
    assert len(module.class_names) == 300
    assert sum(message.count("\n") + 1 for message in caplog.messages) < 40
    assert "left out, not an image by its name: 300 (" in caplog.text
