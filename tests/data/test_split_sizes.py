import pytest

from transfer_learning.data.split_sizes import counts_of_class
from transfer_learning.utilities.errors import ArgumentError


@pytest.mark.parametrize(
    "available, sizes, expected",
    [
        (12, {"train": None, "val": 0.2, "test": 0.2}, [7, 3, 2]),
        (3, {"train": None, "val": 1, "test": 1}, [1, 1, 1]),
        (9, {"train": 0.5, "val": 2, "test": 1}, [4, 2, 1]),
        (2, {"train": None, "test": 0.5}, [1, 1]),
    ],
)
def test_counts_of_a_class(available, sizes, expected):
    assert list(counts_of_class(sizes, available, "cat").values()) == expected


@pytest.mark.parametrize(
    "available, sizes, message",
    [
        (
            1,
            {"train": None, "val": 0.2, "test": 0.2},
            "val_per_class=0.2: class 'cat' has 1 image, but each of 3 splits needs at least one: add images, or list "
            "the other classes (classes=[...]).",
        ),
        (2, {"train": None, "val": 1, "test": 1}, "val_per_class=1: class 'cat' has 2 images, but each of 3 splits"),
        (1, {"train": None, "test": 30}, "test_per_class=30: class 'cat' has 1 image, but each of 2 splits needs at"),
        (
            12,
            {"train": None, "val": 20, "test": 0.2},
            "val_per_class=20: class 'cat' has 12 images, but 22 are asked for (val_per_class=20, test_per_class=0.2): "
            "ask for fewer, or for shares of each class, such as 0.2.",
        ),
        (12, {"train": 5, "val": 1, "test": 9}, "test_per_class=9: class 'cat' has 12 images, but 15 are asked for"),
        (
            3,
            {"train": None, "val": 0.2, "test": 0.2},
            "test_per_class=0.2: class 'cat' with 3 images leaves the test split empty (val_per_class=0.2, "
            "test_per_class=0.2); it needs at least one image: add images, or ask for a count, such as 1.",
        ),
        (
            12,
            {"train": None, "val": 4, "test": 8},
            "test_per_class=8: class 'cat' with 12 images leaves the train split empty (val_per_class=4, "
            "test_per_class=8); it needs at least one image: ask for fewer.",
        ),
    ],
)
def test_sizes_that_a_class_cannot_have(available, sizes, message):
    with pytest.raises(ArgumentError) as error:
        counts_of_class(sizes, available, "cat")
    assert str(error.value).startswith(message)
