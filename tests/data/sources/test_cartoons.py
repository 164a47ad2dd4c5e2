import numpy as np
import pytest

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.sources.cartoons import Cartoons, cartoon
from transfer_learning.utilities.errors import ArgumentError


def test_a_drawing_is_a_function_of_its_seed():
    assert cartoon(0, "a").tobytes() == cartoon(0, "a").tobytes() != cartoon(0, "b").tobytes()


def test_labels_names_and_numbers(small_data):
    data = small_data()
    assert data.class_names == ("cat", "dog")
    assert {split: np.bincount(data.labels[rows]).tolist() for split, rows in data.splits.items()} == {
        "train": [12, 12],
        "val": [5, 5],
        "test": [5, 5],
    }


def test_another_drawing_seed_gives_other_drawings():
    one, same, other = (Cartoons(2, 1, 1, drawing_seed=seed).list_images(FileDigests()) for seed in (0, 0, 1))
    assert one.labels.tolist() == [0, 1] * 4
    assert one.digests == same.digests and not set(one.digests) & set(other.digests)
    assert one.read(3).tobytes() == same.read(3).tobytes() != other.read(3).tobytes()
    assert len({one.read(index).tobytes() for index in range(8)}) == 8 == len(set(one.digests))


def test_more_drawings_contain_the_fewer():
    fewer, more = (Cartoons(count, 1, 1).list_images(FileDigests()) for count in (2, 5))
    assert more.digests[:8] == fewer.digests and more.read(7).tobytes() == fewer.read(7).tobytes()


@pytest.mark.parametrize("arguments", [{"train_per_class": 0.5}, {"val_per_class": 0}, {"drawing_seed": -1}])
def test_only_whole_numbers_are_accepted(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ArgumentError, match=f"{name}={value}: expected"):
        Cartoons(**arguments)


def test_colours_do_not_tell_the_class():
    """Mean colours of the image and of its quarters: their means over the classes differ by chance only, and a linear
    classifier by least squares stays near chance (400 drawings to fit, 400 to test).
    """
    labels = np.arange(800) % 2
    drawings = [cartoon(int(label), f"colour {index}") for index, label in enumerate(labels)]
    means = [
        np.concatenate([np.asarray(image.resize(size, 4), dtype=float).ravel() for size in ((1, 1), (2, 2))])
        for image in drawings
    ]
    colours = np.array(means) / 255
    cats, dogs = colours[labels == 0], colours[labels == 1]
    deviations = np.abs(dogs.mean(axis=0) - cats.mean(axis=0)) / np.sqrt((cats.var(axis=0) + dogs.var(axis=0)) / 400)
    assert deviations.max() < 2.8  # standard errors; ears in a colour of their own give 3.2
    inputs = np.column_stack([colours, np.ones(800)])
    solution = np.linalg.lstsq(inputs[:400], labels[:400] * 2 - 1, rcond=None)[0]
    accuracy = np.mean((inputs[400:] @ solution > 0) == labels[400:])
    assert accuracy < 0.58  # chance is 0.5, two standard deviations are 0.05
