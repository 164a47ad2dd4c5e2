import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from transfer_learning.data.images import Images
from transfer_learning.data.splits import (
    Given,
    GivenOrPerClass,
    PerClass,
    check_kept_splits,
    has_splits,
    split_named,
    with_training_split,
)
from transfer_learning.utilities.errors import ArgumentError, UserError

LABELS = np.array([0, 1] * 50)
DIGESTS = [f"image {index}" for index in range(100)]
COUNTS = (30, 10, 5)
SPLITS = ("train", "val", "test")


def images(labels, digests, class_names=("cat", "dog")):
    return Images([f"name of {digest}" for digest in digests], labels, class_names, digests, read=pytest.fail)


def images_of(class_sizes):
    """That many images of each class."""
    labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
    names = tuple(f"class {code}" for code in range(len(class_sizes)))
    return images(labels, [f"image {index}" for index in range(len(labels))], names)


def counts_of(splits, labels, classes=2):
    return {split: np.bincount(labels[rows], minlength=classes).tolist() for split, rows in splits.items()}


def contents(splits, digests=DIGESTS):
    return {split: [digests[index] for index in rows] for split, rows in splits.items()}


def test_splits_are_disjoint_and_stratified():
    splits = PerClass(*COUNTS)(images(LABELS, DIGESTS))
    assert counts_of(splits, LABELS) == {split: [count, count] for split, count in zip(SPLITS, COUNTS)}
    assert len(set(np.concatenate(list(splits.values())))) == 90
    assert all(rows.dtype == np.int64 for rows in splits.values())


SIZE = st.one_of(st.integers(-1, 40), st.floats(-0.1, 1.1, allow_subnormal=False))  # configure_process makes 0 of those


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=4), SIZE, SIZE, SIZE)
def test_counts_and_shares_are_given_exactly_or_refused(class_sizes, train, val, test):
    per_class = {"train": train, "val": val, "test": test}
    assume(not (all(isinstance(n, float) for n in per_class.values()) and abs(train + val + test - 1) < 1e-6))

    def counts(size):
        return [int(n * size + 1e-9) if isinstance(n, float) else n for n in per_class.values()]

    def possible(size):
        allowed = all(n > 0 and (isinstance(n, int) or n <= 1) for n in per_class.values())
        return allowed and min(counts(size)) >= 1 and sum(counts(size)) <= size

    given_images = images_of(class_sizes)
    try:
        splits = PerClass(train, val, test)(given_images)
    except UserError:
        assert not all(possible(size) for size in class_sizes)
        return
    assert all(possible(size) for size in class_sizes)
    assert len(set(np.concatenate(list(splits.values())))) == sum(map(len, splits.values()))
    expected = {split: [counts(size)[n] for size in class_sizes] for n, split in enumerate(SPLITS)}
    assert counts_of(splits, given_images.labels, len(class_sizes)) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=3), st.integers(1, 98), st.integers(1, 98))
@example([12, 10], 60, 20)
@example([4, 4], 60, 20)  # test gets its only image from the remainders
@example([10, 10], 70, 20)  # 0.7 + 0.2 + 0.1 is less than 1 in floating point
def test_shares_that_add_up_to_one_leave_no_image_unused(class_sizes, train, val):
    """Exact arithmetic in hundredths: each class is used up, and each count is the share, rounded down or up."""
    assume(train + val < 100)
    hundredths = (train, val, 100 - train - val)
    given_images = images_of(class_sizes)
    try:
        splits = PerClass(*(n / 100 for n in hundredths))(given_images)
    except UserError:  # a split would be empty
        assert any(n * size < 100 for n in hundredths for size in class_sizes)
        return
    assert sorted(np.concatenate(list(splits.values()))) == list(range(sum(class_sizes)))
    for split, n in zip(SPLITS, hundredths):
        for count, size in zip(counts_of(splits, given_images.labels, len(class_sizes))[split], class_sizes):
            assert n * size // 100 <= count <= -(-n * size // 100)


@pytest.mark.parametrize(
    "per_class, expected",
    [
        ((0.6, 0.2, 0.2), (7, 3, 2)),  # of 7.2, 2.4, 2.4: the remainder goes to the largest, the first of equal ones
        ((1 / 3, 1 / 3, 1 / 3), (4, 4, 4)),
        ((0.75, 0.125, 0.125), (9, 2, 1)),  # of 9, 1.5, 1.5
        ((0.5, 0.2, 0.2), (6, 2, 2)),  # less than one in all: rounded down
        ((0.6, 0.2, 0.19), (7, 2, 2)),
        ((0.6, 2, 0.2), (7, 2, 2)),  # a count among them
        ((8, 2, 2), (8, 2, 2)),
        ((5, 2, 1), (5, 2, 1)),
    ],
)
def test_twelve_images_of_each_class(per_class, expected):
    twelve = images_of([12, 12])
    splits = PerClass(*per_class)(twelve)
    assert counts_of(splits, twelve.labels) == {split: [n, n] for split, n in zip(SPLITS, expected)}


def test_each_class_is_divided_in_the_random_order_of_its_images():
    """The order is that of hashes; a list of each class that is made by itself."""
    labels, digests = np.random.default_rng(0).integers(5, size=300), [f"image {index}" for index in range(300)]
    splits = PerClass(20, 10, 5, seed=3)(images(labels, digests, tuple("abcde")))
    order = sorted(range(300), key=lambda index: hashlib.sha256(f"3 image {index}".encode()).hexdigest())
    for code in range(5):
        members = [index for index in order if labels[index] == code]
        parts = {"train": members[:20], "val": members[20:30], "test": members[30:35]}
        assert {split: [n for n in rows.tolist() if labels[n] == code] for split, rows in splits.items()} == parts


def test_a_split_mixes_its_classes():
    labels = LABELS[PerClass(*COUNTS)(images(LABELS, DIGESTS))["train"]]
    assert 1 < np.count_nonzero(np.diff(labels)) < 59


def test_the_split_of_an_image_is_a_function_of_seed_and_content():
    splits = PerClass(*COUNTS, seed=3)(images(LABELS, DIGESTS))
    shuffled = np.random.default_rng(0).permutation(100)
    digests = [DIGESTS[index] for index in shuffled]
    again = PerClass(*COUNTS, seed=3)(images(LABELS[shuffled], digests))
    assert contents(splits) == contents(again, digests)
    assert contents(splits) != contents(PerClass(*COUNTS, seed=4)(images(LABELS, DIGESTS)))


def test_a_known_split_stays_what_it_is():
    """Stored results: if this changes, everybody's split has changed."""
    splits = PerClass(1, 1, 1)(images(LABELS[:6], DIGESTS[:6]))
    assert contents(splits) == {
        "train": ["image 3", "image 2"],
        "val": ["image 5", "image 4"],
        "test": ["image 1", "image 0"],
    }


def test_fractions_are_shares_of_each_class():
    labels = np.array([0] * 10 + [1] * 35)
    splits = PerClass(0.6, 0.2, 0.2)(images(labels, DIGESTS[:45]))
    assert list(counts_of(splits, labels).values()) == [[6, 21], [2, 7], [2, 7]]


def test_the_tutorials_sizes():
    labels = np.repeat([0, 1], 2500)
    splits = PerClass(1500, 500, 500)(images(labels, [f"image {index}" for index in range(5000)]))
    assert counts_of(splits, labels) == {"train": [1500, 1500], "val": [500, 500], "test": [500, 500]}


def test_too_few_images():
    message = r"train_per_class=50: class 'cat' has 50 images, but 65 are asked for .*val_per_class=10"
    with pytest.raises(ArgumentError, match=message) as error:
        PerClass(50, 10, 5)(images(LABELS, DIGESTS))
    assert (error.value.argument, error.value.value) == ("train_per_class", 50)


@pytest.mark.parametrize("count", [0, -1, 0.001, 1.5, True, None, "abc", float("nan")])
def test_sizes_that_are_no_number_of_images_are_refused(count):
    with pytest.raises(ArgumentError, match=f"val_per_class={count!r}: ") as error:
        PerClass(10, count, 5)(images(LABELS, DIGESTS))
    assert error.value.argument == "val_per_class"


def test_what_the_others_leave_is_for_training():
    twelve = images_of([12, 7])
    rest = PerClass(None, 0.2, 0.2)(twelve)
    assert counts_of(rest, twelve.labels) == counts_of(PerClass(0.6, 0.2, 0.2)(twelve), twelve.labels)
    assert counts_of(PerClass(None, 2, 3)(twelve), twelve.labels) == {"train": [7, 2], "val": [2, 2], "test": [3, 3]}
    assert counts_of(PerClass(None, 2, 0.5)(twelve), twelve.labels)["train"] == [4, 2]
    with pytest.raises(ArgumentError, match="leaves the train split empty"):
        PerClass(None, 4, 3)(twelve)
    with pytest.raises(ArgumentError, match="12 images, but 13 are asked for"):
        PerClass(None, 0.5, 0.6)(twelve)


@pytest.mark.parametrize(
    "name, split",
    [(name, "train") for name in ("train", "Train", "training", "training_data", "train-set", "train1")]
    + [(name, "val") for name in ("val", "valid", "validation", "Validation", "validation images")]
    + [(name, "test") for name in ("test", "TEST", "testing", "test1", "test_set")]
    + [(name, "train") for name in ("train_dataset", "training_dataset", "Train Images", "train_imgs", "trainset")]
    + [(name, None) for name in ("trains", "cat", "", "test bench", "valley", "retrain", "value")],
)
def test_names_of_splits(name, split):
    assert split_named(name) == split


def with_splits(text, labels=None, groups=None):
    """Images whose splits are the letters: t training, v validation, e test, - none."""
    names = {"t": "train", "v": "val", "e": "test", "-": None}
    labels = np.arange(len(text)) % 2 if labels is None else np.array(labels)
    return replace(images(labels, DIGESTS[: len(text)]), splits=[names[each] for each in text], groups=groups)


def test_given_splits_are_kept():
    given_images = with_splits("ttttttvveeee" + "ttvvee")
    splits = Given()(given_images)
    assert {split: sorted(rows) for split, rows in splits.items()} == {
        "train": [0, 1, 2, 3, 4, 5, 12, 13],
        "val": [6, 7, 14, 15],
        "test": [8, 9, 10, 11, 16, 17],
    }
    assert all(rows.dtype == np.int64 for rows in splits.values())
    assert contents(GivenOrPerClass()(given_images)) == contents(splits)
    anew = PerClass(None, 0.2, 0.2)(given_images)
    assert sorted(anew["test"]) != sorted(splits["test"])


@pytest.mark.parametrize("missing, kept", [("v", "test"), ("e", "val")])
def test_a_split_that_is_missing_is_taken_from_the_training_images(missing, kept):
    text = ("t" * 20 + "v" * 4 + "e" * 4).replace(missing, "")
    given_images = with_splits(text)
    splits = Given(val_per_class=3, test_per_class=0.2)(given_images)
    taken = "val" if missing == "v" else "test"
    size = {"val": 3, "test": 2}[taken]
    assert counts_of(splits, given_images.labels) == {"train": [10 - size] * 2, taken: [size] * 2, kept: [2, 2]}
    assert set(splits[kept]) == {n for n, split in enumerate(given_images.splits) if split == kept}
    assert set(splits["train"]) | set(splits[taken]) == set(range(20))


def test_a_number_for_training_takes_so_many_of_the_given_training_images():
    given_images = with_splits("t" * 20 + "vvee")
    splits = Given(train_per_class=3)(given_images)
    assert counts_of(splits, given_images.labels) == {"train": [3, 3], "val": [1, 1], "test": [1, 1]}
    assert set(splits["train"]) < set(range(20))


@pytest.mark.parametrize("text", ["tttt", "vvee", "----", "ee", "tt--"])
def test_without_training_images_and_others_no_splits_are_given(text):
    given_images = with_splits(text * 10)
    with pytest.raises(UserError, match="no splits are given"):
        Given()(given_images)
    assert not GivenOrPerClass().keeps_splits(given_images)
    anew = GivenOrPerClass(0.6, 0.2, 0.2)(given_images)
    assert contents(anew) == contents(PerClass(0.6, 0.2, 0.2)(given_images))


def test_images_without_a_split_beside_given_ones_are_an_error():
    with pytest.raises(
        UserError, match=r"2 images are in no split \(name of image 4, name of image 5\), but others are"
    ):
        GivenOrPerClass()(with_splits("ttve--"))


def in_groups(labels, group_size):
    """Images of which each `group_size` neighbours are a group."""
    return replace(
        images(np.array(labels), DIGESTS[: len(labels)]), groups=[f"P{n // group_size}" for n in range(len(labels))]
    )


@pytest.mark.parametrize("sizes", [(0.6, 0.2, 0.2), (None, 0.2, 0.2), (18, 6, 6), (6, 3, 3)])
def test_a_group_is_in_one_split_and_shares_are_met(sizes):
    grouped = in_groups(np.repeat(np.arange(20) % 2, 3), 3)  # 20 groups of 3 images, each of one class
    splits = PerClass(*sizes)(grouped)
    groups = {split: {grouped.groups[row] for row in rows} for split, rows in splits.items()}
    assert not groups["train"] & groups["val"] and not (groups["train"] | groups["val"]) & groups["test"]
    wanted = {"train": [18, 18], "val": [6, 6], "test": [6, 6]}
    if sizes == (6, 3, 3):
        wanted = {"train": [6, 6], "val": [3, 3], "test": [3, 3]}
    assert counts_of(splits, grouped.labels) == wanted


def test_groups_of_all_sizes_and_classes_stay_together(caplog):
    rng = np.random.default_rng(0)
    groups = [f"scene {n}" for n in rng.integers(0, 30, 100)]
    grouped = replace(images(LABELS, DIGESTS), groups=groups)
    with caplog.at_level("INFO"):
        splits = PerClass(0.6, 0.2, 0.2)(grouped)
    seen = [groups[row] for rows in splits.values() for row in rows]
    assert len(seen) == 100 and sum(len({groups[row] for row in rows}) for rows in splits.values()) == len(set(groups))
    assert [abs(len(splits[split]) - n) <= 3 for split, n in zip(SPLITS, (60, 20, 20))] == [True] * 3
    got = ", ".join(f"{split} {len(splits[split])} ({n} asked for)" for split, n in zip(SPLITS, (60, 20, 20)))
    assert f"{len(set(groups))} groups, each in one split: {got}" in caplog.text


def test_the_split_of_groups_does_not_depend_on_names_and_order():
    grouped = in_groups(np.repeat(np.arange(20) % 2, 3), 3)
    shuffled = np.random.default_rng(0).permutation(60)
    again = replace(grouped.take(shuffled), groups=[f"other name {grouped.groups[n]}" for n in shuffled])
    digests = [DIGESTS[n] for n in shuffled]
    assert contents(PerClass(0.6, 0.2, 0.2)(grouped)) == contents(PerClass(0.6, 0.2, 0.2)(again), digests)


def test_which_group_fills_an_empty_split_depends_on_the_seed_and_not_on_names():
    """60 images of a in groups of their own, and two groups of 3 of b, both of which are first given to training."""
    labels, codes = [0] * 60 + [1] * 6, [*range(60), 60, 60, 60, 61, 61, 61]
    validates = {False: [], True: []}
    for seed in range(12):
        for swapped, found in validates.items():
            groups = [f"P{121 - code if swapped and code >= 60 else code}" for code in codes]
            grouped = replace(images(np.array(labels), DIGESTS[:66]), groups=groups)
            splits = PerClass(0.6, 0.2, 0.2, seed=seed)(grouped)
            found.append([row for row in splits["val"] if row >= 60])
    assert validates[False] == validates[True]
    assert {tuple(rows) for rows in validates[False]} >= {(60, 61, 62), (63, 64, 65)}


def test_too_few_groups():
    with pytest.raises(ArgumentError, match="2 groups are too few, or too large, for the test split"):
        PerClass(0.6, 0.2, 0.2)(in_groups([0, 1] * 10, 10))


def test_groups_in_several_given_splits_are_named(caplog):
    groups = ["P1", "P2", "P1", "P3", "P2", "P4"]
    with caplog.at_level("INFO"):
        Given()(with_splits("ttvvee", groups=groups))
    assert "2 groups have images in several of the given splits: P1, P2" in caplog.text


def test_a_missing_split_is_taken_from_training_images_by_groups():
    groups = [f"P{n // 4}" for n in range(24)] + ["T"] * 4
    splits = Given(val_per_class=0.34)(with_splits("t" * 24 + "e" * 4, groups=groups))
    held = [{groups[row] for row in splits[split]} for split in SPLITS]
    assert held[0] | held[1] == {f"P{n}" for n in range(6)} and not held[0] & held[1] and held[2] == {"T"}


@pytest.mark.parametrize("per_class", [(None, 0.2, 0.2), (2, 2, 2), (None, 1, 1)])
@pytest.mark.parametrize("size, labels", [(4, [0, 1] * 3), (5, [0, 1] * 3), (4, [0] * 3 + [1] * 5), (2, [0, 1] * 10)])
def test_each_split_has_a_group_of_each_class_that_has_enough_groups(per_class, size, labels):
    grouped = in_groups(np.repeat(labels, size), size)
    splits = PerClass(*per_class)(grouped)
    assert all(min(counts) > 0 for counts in counts_of(splits, grouped.labels).values())


def test_images_beside_a_given_test_split_are_training_images():
    alone = with_training_split(with_splits("----ee"))
    assert alone.splits == ["train"] * 4 + ["test"] * 2 and has_splits(alone)
    for text in ("tt--ee", "------", "tt--"):
        assert with_training_split(with_splits(text)).splits == with_splits(text).splits


def test_a_given_split_of_which_no_image_is_left_is_an_error():
    given_images = with_splits("ttvvee")
    check_kept_splits(given_images, np.array([0, 2, 4]))
    with pytest.raises(UserError, match="all val images are left out"):
        check_kept_splits(given_images, np.array([0, 1, 4, 5]))
    check_kept_splits(given_images, np.array([0, 1, 4, 5]), ("train", "test"))  # folds divide the others anew


def test_a_count_that_rounding_leaves_is_for_training():
    labels = np.repeat([0, 1], 100)
    splits = PerClass(None, 0.29, 10)(images(labels, [f"image {n}" for n in range(200)]))
    assert counts_of(splits, labels) == {"train": [61, 61], "val": [29, 29], "test": [10, 10]}


def test_a_class_without_training_images_does_not_keep_others_from_a_validation_split():
    given_images = with_splits("t" * 20 + "eee", labels=[0, 1] * 10 + [0, 1, 2])
    splits = Given()(replace(given_images, class_names=("a", "b", "c")))
    assert counts_of(splits, given_images.labels, 3) == {"train": [8, 8, 0], "val": [2, 2, 0], "test": [1, 1, 1]}
