import numpy as np

from transfer_learning.data.cartoons import cartoon


def test_a_drawing_follows_from_its_seed():
    assert cartoon(0, "a").tobytes() == cartoon(0, "a").tobytes() != cartoon(0, "b").tobytes()


def test_labels_names_and_numbers(small_data):
    data = small_data()
    assert data.class_names == ("cat", "dog")
    assert {part: np.bincount(data.labels[rows]).tolist() for part, rows in data.parts.items()} == {
        "train": [12, 12],
        "val": [5, 5],
        "test": [5, 5],
    }


def test_colour_alone_tells_nothing():
    """Mean colours of the whole and of its quarters: the classes' means differ by chance only, and a linear classifier by least squares
    stays near chance (400 drawings, 400 more to test)."""
    labels = np.arange(800) % 2
    drawings = [cartoon(int(label), f"colour {index}") for index, label in enumerate(labels)]
    means = [
        np.concatenate([np.asarray(image.resize(size, 4), dtype=float).ravel() for size in ((1, 1), (2, 2))])
        for image in drawings
    ]
    colours = np.array(means) / 255
    cats, dogs = colours[labels == 0], colours[labels == 1]
    deviations = np.abs(dogs.mean(axis=0) - cats.mean(axis=0)) / np.sqrt((cats.var(axis=0) + dogs.var(axis=0)) / 400)
    assert deviations.max() < 2.8  # standard errors; ears in a colour of the class's own give 3.2
    inputs = np.column_stack([colours, np.ones(800)])
    solution = np.linalg.lstsq(inputs[:400], labels[:400] * 2 - 1, rcond=None)[0]
    accuracy = np.mean((inputs[400:] @ solution > 0) == labels[400:])
    assert accuracy < 0.58  # chance is 0.5, two standard deviations are 0.05
