import numpy as np

from transfer_learning.data.summary import log_classes, log_left_out


def logged(caplog, level, function, *arguments):
    caplog.clear()
    with caplog.at_level(level, logger="transfer_learning.details"):
        function(*arguments)
    return "\n".join(record.message for record in caplog.records).split("\n")


def test_a_row_for_each_class_and_a_column_for_each_split(caplog):
    labels = np.array([0] * 1200 + [1] * 30)
    splits = {"train": np.arange(100, 1210), "val": np.arange(10), "test": np.array([1220])}
    lines = logged(caplog, "INFO", log_classes, ("cat", "12"), labels, splits, 1230)
    assert [line.split() for line in lines if "---" not in line] == [
        ["class", "train", "val", "test"],
        ["cat", "1,100", "10", "0"],
        ["12", "10", "0", "1"],
        ["all", "1,110", "10", "1"],
        ["no", "val", "images", "of", "12"],
        ["no", "test", "images", "of", "cat"],
        ["in", "no", "split:", "109", "images,", "which", "the", "sizes", "of", "the", "splits", "do", "not", "use"],
    ]


def test_of_a_thousand_classes_the_largest_and_smallest_are_shown_and_the_log_has_all(caplog):
    sizes = np.arange(1, 1001)
    labels = np.repeat(np.arange(1000), sizes)
    splits = {"train": np.arange(len(labels)), "val": np.array([], int), "test": np.array([], int)}
    names = tuple(f"class-{number}" for number in range(1000))
    lines = logged(caplog, "INFO", log_classes, names, labels, splits, len(labels))
    assert len(lines) < 30
    assert {line.split()[0] for line in lines if line.startswith("class-")} == {
        f"class-{number}" for number in (*range(10), *range(990, 1000))
    }
    assert lines[-3].split() == ["all", "1,000", "classes", "500,500", "0", "0"]
    assert lines[-1] == "no test images of class-0, class-1, class-2 and 997 more"
    everything = logged(caplog, "DEBUG", log_classes, names, labels, splits, len(labels))
    assert {name for line in everything for name in line.split()[:1]} >= set(names)


def test_what_was_left_out_is_counted_and_the_log_has_each_name(caplog):
    left_out = {"of other classes": [f"bird/{n}.jpg" for n in range(5000)], "not an image": ["a.txt"], "never": []}
    assert logged(caplog, "INFO", log_left_out, left_out) == [
        "left out, of other classes: 5,000 (bird/0.jpg, bird/1.jpg, bird/2.jpg and 4,997 more)",
        "left out, not an image: 1 (a.txt)",
    ]
    lines = logged(caplog, "DEBUG", log_left_out, left_out)
    assert all(sum(name in line for line in lines) == 1 for name in ("bird/2.jpg", "bird/3.jpg", "bird/4999.jpg"))
