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
    names = [name.partition("/images/")[2] for name in images.names]
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
        ('"file", "label"\n"a.png", "cat"\nb.png, "dog, big"\n', "labels.csv", "utf-8"),
        (' "file";  "label"\na.png;cat\n "b.png" ; "dog, big" \n', "labels.csv", "utf-8"),
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


def test_a_whole_path_is_not_cut_if_the_root_has_a_folder_of_its_own_name(listed):
    rows = "images/0.png,cat\n0.png,dog\nimages/1.png,cat\nother/1.png,dog\n"
    images = listed("file,label\n" + rows, ["0.png", "images/0.png", "images/1.png", "other/1.png"])
    expected = {"0.png": "dog", "images/0.png": "cat", "images/1.png": "cat", "other/1.png": "dog"}
    assert told(images) == expected and images.left_out == {}


def test_previews_above_the_images_do_not_take_their_rows(listed):
    images = listed("file,label\nimages/0.png,cat\nx/1,dog\n", ["0.png", "1.png", "images/0.png", "x/1.png"])
    assert told(images) == {"images/0.png": "cat", "x/1.png": "dog"}
    assert left_out(images) == {"without a row in the table": 2}


def test_after_the_root_a_path_names_no_file_in_a_folder_below(listed):
    images = listed("file,label\nimages/0.png,cat\nb,dog\nc,cat\n", ["x/0.png", "b.png", "c.png"])
    assert left_out(images) == {"in the table, but not in": 1, "without a row in the table": 1}


def test_a_path_that_may_begin_with_the_root_or_not_is_an_error(listed):
    with pytest.raises(ArgumentError, match=r"images/0\.png in line 2 may be each of 0\.png, x/images/0\.png: add its"):
        listed("file,label\nimages/0.png,cat\nb,dog\n", ["0.png", "x/images/0.png", "b.png"])


@pytest.mark.parametrize("folder", ["", "x/"])
def test_a_name_with_its_suffix_comes_before_one_without(listed, folder):
    files = [f"{folder}{name}" for name in ("3.jpg", "3.jpg.png", "4.png", "4.png.png")]
    images = listed("file,label\n3.jpg,cat\n3.jpg.png,dog\n4.png,dog\n", files)
    assert told(images) == dict(zip(files, ("cat", "dog", "dog")))


@pytest.mark.parametrize("cell, file", [("e\u0301/1.png", "\xe9/1.png"), ("\xe91", "x/e\u03011.png")])
def test_accents_may_be_encoded_in_another_way_than_those_of_the_files(listed, cell, file):
    images = listed(f"file,label\n{cell},cat\nother,dog\n", [file, "other.png"])
    assert told(images) == {file: "cat", "other.png": "dog"} and images.left_out == {}


def test_two_files_whose_names_differ_in_the_encoding_of_accents_alone(listed):
    images = listed("file,label\n\xe9.png,cat\ne\u0301.png,dog\n", ["e\u0301.png", "\xe9.png"])
    assert told(images) == {"\xe9.png": "cat", "e\u0301.png": "dog"}


def test_names_in_another_case_are_other_names_and_that_is_said(listed, tmp_path):
    images = listed("file,label\nA.PNG,cat\nb,dog\nc,cat\nX/D,cat\ne,cat\n", ["a.png", "b.png", "c.png", "x/d.png"])
    assert told(images) == {"b.png": "dog", "c.png": "cat"}
    place = tmp_path / "images"
    assert images.left_out[f"in the table, but in {place} only in another case of letters"] == [
        "A.PNG in line 2",
        "X/D in line 5",
    ]
    assert images.left_out[f"in the table, but not in {place}"] == ["e in line 6"]


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
    "text, file_column",
    [
        ("file|label\na|x\nb|y\n", "file"),
        ("file;label;width, height, depth\na;x;1\nb;y;2\n", "file"),
        ("my,file\tlabel\na\tx\nb\ty\n", "my,file"),
    ],
)
def test_the_columns_tell_the_delimiter(listed, text, file_column):
    images = listed(text, ["a.png", "b.png"], file_column=file_column)
    assert told(images) == {"a.png": "x", "b.png": "y"}


def test_delimiters_at_the_end_of_lines_are_no_cells(listed):
    images = listed("file,label\na.png,x,\nb.png,y, ,\n", ["a.png", "b.png"])
    assert told(images) == {"a.png": "x", "b.png": "y"}


def test_a_quote_that_is_not_closed_is_an_error(listed):
    """Else the rest of the table would be a class."""
    with pytest.raises(ArgumentError, match="a cell that ends in line 4 has a line break; is a quote missing above?"):
        listed('file,label\na.png,"x\nb.png,y\nc.png,y\n', ["a.png", "b.png", "c.png"])


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
    assert "names that differ only in case are different classes here" in caplog.text


def test_classes_and_groups_that_are_the_same_number_are_different_and_that_is_said(listed, caplog):
    text = "file,label,who\na,1,7\nb,1.0,7.0\nc,2,P1\nd,2,p1\ne,2,\n"
    with caplog.at_level("INFO"):
        images = listed(text, ["a.png", "b.png", "c.png", "d.png", "e.png"], group_column="who")
    assert images.class_names == ("1", "1.0", "2") and len(set(images.groups)) == 5
    assert [record.message for record in caplog.records] == [
        "names that differ only in how a number is written are different classes here: '1' and '1.0'",
        "names that differ only in how a number is written are different groups here: '7' and '7.0'",
        "names that differ only in case are different groups here: P1 and p1",
    ]


def test_what_a_table_calls_other_classes_is_printable(listed):
    images = listed("file,label\na,x\nb,y\nc,z\x1b[31m\n", ["a.png", "b.png", "c.png"], classes=["x", "y"])
    assert left_out(images) == {r"of other classes: z\x1b[31m": 1}


def test_classes_that_would_be_printed_alike_are_refused(listed):
    with pytest.raises(ArgumentError, match=r"the classes 'x\\x07', 'x\\\\x07' would all be called x\\x07 in") as error:
        listed("file,label\na,x\x07\nb,x\\x07\n", ["a.png", "b.png"])
    assert error.value.argument == "table"


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
