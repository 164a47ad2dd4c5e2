import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from transfer_learning.data.images import Images
from transfer_learning.data.splits import PerClass, distinct
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


def test_the_tutorials_sizes_are_the_default():
    labels = np.repeat([0, 1], 2500)
    splits = PerClass()(images(labels, [f"image {index}" for index in range(5000)]))
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


def test_distinct_keeps_one_copy_and_drops_contradictions():
    labels = np.array([0, 0, 1, 1, 0, 1])
    assert distinct(labels, ["a", "a", "b", "c", "d", "d"]).tolist() == [0, 2, 3]
