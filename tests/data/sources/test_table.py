import numpy as np
import pytest

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.sources.table import Table
from transfer_learning.utilities.errors import ArgumentError


@pytest.fixture
def listed(tmp_path, write_image):
    """listed(text, files, **arguments): what a table with this text lists, of images in these files."""

    def make(text, files, name="labels.csv", encoding="utf-8", **arguments):
        for seed, file in enumerate(files):
            write_image(tmp_path / "images" / file, seed)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding=encoding)
        columns = {"file_column": "file", "label_column": "label", "root": tmp_path / "images"}
        return Table(tmp_path / name, **columns | arguments).list_images(FileDigests())

    return make


def told(images):
    names = [name.rpartition("images/")[2] for name in images.names]
    return dict(zip(names, (images.class_names[code] for code in images.labels)))


def left_out(images):
    return {reason.partition("/")[0].strip(): len(names) for reason, names in images.left_out.items()}


def test_a_row_for_each_image(listed):
    images = listed("file,label\na.png,cat\nb.png,dog\nc.png,cat\n", ["a.png", "b.png", "c.png"])
    assert told(images) == {"a.png": "cat", "b.png": "dog", "c.png": "cat"}
    assert images.class_names == ("cat", "dog") and images.labels.dtype == np.int64
    assert images.left_out == {} and images.groups is None and set(images.splits) == {None}
    assert images.read(1).size == (24, 18)


@pytest.mark.parametrize(
    "text, name, encoding",
    [
        ("file\tlabel\na.png\tcat\nb.png\tdog, big\n", "labels.tsv", "utf-8"),
        ("file;label\na.png;cat\nb.png;dog, big\n", "labels.csv", "utf-8"),
        ('file,label\na.png,cat\nb.png,"dog, big"\n', "labels.csv", "utf-8-sig"),
        ('"file","label"\r\n"a.png","cat"\r\n"b.png","dog, big"\r\n', "labels.txt", "utf-8"),
        (' file , label , more \na.png , cat , 1\n"b.png"," dog, big ",2\n\n', "labels", "utf-8"),
    ],
)
def test_separators_quotes_and_spaces(listed, text, name, encoding):
    images = listed(text, ["a.png", "b.png"], name, encoding)
    assert told(images) == {"a.png": "cat", "b.png": "dog, big"} and images.left_out == {}


@pytest.mark.parametrize(
    "cell, file",
    [
        ("000b", "000b.png"),
        ("000b.png", "000b.png"),
        ("sub/000b.png", "sub/000b.png"),
        ("sub/000b", "sub/000b.png"),
        ("./sub/000b.png", "sub/000b.png"),
        ("sub\\000b.png", "sub/000b.png"),
        ("000b", "deep/sub/000b.png"),
        ("000b.png", "deep/sub/000b.png"),
        ("scan.01", "scan.01.png"),
        ("scan.01.png", "scan.01.png"),
        ("7", "7.png"),
        ("Ñandú 猫", "Ñandú 猫.png"),
    ],
)
def test_files_by_path_or_name_with_or_without_suffix(listed, cell, file):
    images = listed(f"file,label\n{cell},cat\nother,dog\n", [file, "other.png"])
    assert told(images) == {file: "cat", "other.png": "dog"}


@pytest.mark.parametrize(
    "cell", ["images/0.png", "./images/0", "images\\\\0.png", "{root}/0.png", "{root}/0", "x/0.png", "y/x/0"]
)
def test_paths_that_begin_with_the_root_or_leave_out_folders(listed, tmp_path, cell):
    file = {"x": "y/x/0.png", "y": "y/x/0.png"}.get(cell[0], "0.png")
    images = listed(f"file,label\n{cell.format(root=tmp_path / 'images')},cat\nother,dog\n", [file, "other.png"])
    assert told(images) == {file: "cat", "other.png": "dog"}


def test_a_path_is_not_found_in_another_folder(listed):
    images = listed("file,label\ntrain/0.png,cat\nother,dog\n1,cat\n", ["val/0.png", "other.png", "1.png"])
    assert told(images) == {"other.png": "dog", "1.png": "cat"}
    assert left_out(images) == {"in the table, but not in": 1, "without a row in the table": 1}


def test_files_without_a_suffix(listed, tmp_path, write_image):
    file = write_image(tmp_path / "images" / "blob.png", 7)
    file.rename(file.with_suffix(""))
    images = listed("file,label\nblob,cat\nother,dog\n", ["other.png"])
    assert told(images) == {"blob": "cat", "other.png": "dog"}


@pytest.mark.parametrize(
    "text, argument, message",
    [
        (
            "file,label\na,dog, golden\nb,cat\n",
            "table",
            "line 2 has more cells than the header; put cells that contain ','",
        ),
        ('file,label\na,"dog\n' + "x" * 200_000, "table", r"line \d+ cannot be read \(field larger than field limit"),
        ("file,label,label\na,x,y\nb,x,y\n", "label_column", "2 such columns in .*; it has file, label, label"),
        ("", "file_column", "no such column in .*; it has no header"),
    ],
)
def test_tables_that_cannot_be_read(listed, text, argument, message):
    with pytest.raises(ArgumentError, match=message) as error:
        listed(text, ["a.png", "b.png"])
    assert error.value.argument == argument


@pytest.mark.parametrize(
    "text", ["file|label\na|x\nb|y\n", "file;label,more\na;x\nb;y\n", "my,file\tlabel\na\tx\nb\ty\n"]
)
def test_the_columns_tell_the_delimiter(listed, text):
    first = text.partition("label")[0][:-1]
    images = listed(text, ["a.png", "b.png"], file_column=first) if "more" not in text else None
    assert images is None or told(images) == {"a.png": "x", "b.png": "y"}


@pytest.mark.parametrize("classes", [[], ["cat"], ["cat", "cat"]])
def test_fewer_than_two_classes_are_refused(listed, classes):
    with pytest.raises(ArgumentError, match="expected two class names or more, each once"):
        listed("file,label\na,cat\nb,dog\n", ["a.png", "b.png"], classes=classes)


def test_classes_may_be_numbers(listed):
    images = listed("file,label\na,0\nb,1\n", ["a.png", "b.png"], classes=[1, 0])
    assert images.class_names == ("1", "0")


def test_a_path_comes_before_a_name_somewhere_below(listed):
    images = listed("file,label\na.png,cat\nb/a.png,dog\n", ["a.png", "b/a.png"])
    assert told(images) == {"a.png": "cat", "b/a.png": "dog"}


def test_a_name_that_fits_several_files_is_an_error(listed):
    with pytest.raises(ArgumentError, match=r"file_column='file': a in line 2 may be each of a\.jpg, a\.png: add its"):
        listed("file,label\na,cat\nb,dog\n", ["a.png", "a.jpg", "b.png"])
    with pytest.raises(ArgumentError, match=r"x\.png in line 3 may be each of 1/x\.png, 2/x\.png"):
        listed("file,label\nb,cat\nx.png,dog\n", ["1/x.png", "2/x.png", "b.png"])


def test_what_is_missing_is_counted_and_named(listed):
    text = "file,label\na,cat\nb,dog\nc,\nd,cat\n,dog\ne,dog\nc2,\n"
    images = listed(text, ["a.png", "b.png", "c.png", "c2.png", "extra1.png", "extra2.png"])
    assert told(images) == {"a.png": "cat", "b.png": "dog"}
    assert left_out(images) == {
        "without a class in the table": 2,
        "in the table, but not in": 3,
        "without a row in the table": 2,
    }
    assert "d in line 5" in str(images.left_out) and "a row without a file in line 6" in str(images.left_out)


def test_rows_of_one_file(listed):
    text = "file,label\na,cat\na.png,cat\nb,dog\nc,cat\nc,dog\nd,cat\n"
    images = listed(text, ["a.png", "b.png", "c.png", "d.png"])
    assert told(images) == {"a.png": "cat", "b.png": "dog", "d.png": "cat"}
    assert left_out(images) == {"with rows that differ": 1}


def test_splits_and_groups(listed):
    text = "file,label,fold,who\na,x,train,P1\nb,y,Validation,P2\nc,x,TEST,\nd,y,,P1\n"
    images = listed(text, ["a.png", "b.png", "c.png", "d.png"], split_column="fold", group_column="who")
    assert images.splits == ["train", "val", "test", None]
    assert images.groups == ["P1", "P2", "c.png", "P1"]


def test_classes_in_this_order(listed):
    text = "file,label\na,x\nb,y\nc,z\nd,x\n"
    images = listed(text, ["a.png", "b.png", "c.png", "d.png"], classes=["z", "x"])
    assert images.class_names == ("z", "x") and told(images) == {"a.png": "x", "c.png": "z", "d.png": "x"}
    assert left_out(images) == {"of other classes: y": 1}


def test_classes_that_differ_in_case_are_different_and_that_is_said(listed, caplog):
    with caplog.at_level("INFO"):
        images = listed("file,label\na,a\nb,A\n", ["a.png", "b.png"])
    assert images.class_names == ("A", "a")
    assert "names that differ in case only are different classes here" in caplog.text


def test_the_tables_folder_is_the_default_root(tmp_path, write_image):
    for name in ("images/0.png", "images/1.png"):
        write_image(tmp_path / name, 0)
    (tmp_path / "labels.csv").write_text("file,label\nimages/0.png,ill\nimages/1.png,well\n")
    images = Table(tmp_path / "labels.csv", "file", "label").list_images(FileDigests())
    assert images.names == [f"{tmp_path}/images/0.png", f"{tmp_path}/images/1.png"]


@pytest.mark.parametrize(
    "arguments, argument, message",
    [
        ({"label_column": "breed"}, "label_column", "no such column in .*labels.csv; it has file, label, split"),
        ({"group_column": "who"}, "group_column", "no such column"),
        ({"split_column": "split"}, "split_column", "b in line 3 has the split 'dev'; expected train, val or test"),
        ({"root": "/nowhere"}, "root", "no such folder"),
        (
            {"classes": ["cat", "bird"]},
            "classes",
            "classes found: cat; expected cat and bird. Left out: of other classes",
        ),
        ({"label_column": 3}, "label_column", "expected a valid string"),
    ],
)
def test_mistakes_are_named(listed, arguments, argument, message):
    with pytest.raises(ArgumentError, match=message) as error:
        listed("file,label,split\na,cat,train\nb,dog,dev\n", ["a.png", "b.png"], **arguments)
    assert error.value.argument == argument


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no such column in .*; it has no header."),
        ("file,label\n", "classes found: none; expected at least two classes"),
        ("file,label\nnowhere,cat\nx,dog\n", "classes found: none; .*Left out: in the table, but not in"),
        ("file,label\na,cat\nb,cat\n", "classes found: cat; expected at least two classes"),
        ("file,label\na\nb,dog\n", "classes found: dog; .*Left out: without a class in the table: a.png"),
    ],
)
def test_tables_without_enough_rows(listed, text, message):
    with pytest.raises(ArgumentError, match=message):
        listed(text, ["a.png", "b.png"])


def test_a_file_that_is_no_table(listed, tmp_path):
    with pytest.raises(ArgumentError, match="expected a table that is saved as UTF-8 text"):
        listed("file,label\ncafé,dog\n", [], encoding="latin-1")
    with pytest.raises(ArgumentError, match="no such file"):
        Table(tmp_path / "nowhere.csv", "file", "label", root=tmp_path).list_images(FileDigests())
