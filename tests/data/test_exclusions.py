import hashlib

import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.exclusions import excluded_images, read_exclusions
from transfer_learning.data.images import Images
from transfer_learning.data.sources.folder import Folder
from transfer_learning.utilities.errors import ArgumentError


@pytest.fixture
def table(tmp_path):
    """table(text): the path of an audit.csv with this text, or these bytes."""

    def write(content):
        path = tmp_path / "audit.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("value", ["x", "X", "1", "yes", "Yes", "true", "TRUE", " x "])
def test_marks_that_exclude(table, value):
    assert read_exclusions(table(f"exclude,sha256\n{value},a\n,b\n")) == {"a"}


@pytest.mark.parametrize("value", ["", "0", "no", "No", "false", "FALSE", "  "])
def test_marks_that_keep(table, value):
    assert read_exclusions(table(f"exclude,sha256\n{value},a\n")) == set()


@pytest.mark.parametrize("value", ["maybe", "2", "xx", "-", "drop"])
def test_other_marks_are_an_error_that_names_the_row(table, value):
    path = table(f"exclude,sha256\nx,a\n,b\n{value},c\n")
    with pytest.raises(ArgumentError) as error:
        read_exclusions(path)
    assert error.value.argument == "exclude" and error.value.value == str(path)
    assert error.value.message.startswith(f"row 4 has {value!r} in the column exclude; expected x, 1, yes, true to")


@pytest.mark.parametrize(
    "content",
    [
        "sha256,exclude,more\na,x,1\nb,,\nc\n",  # in any order; a row that ends early
        "file;sha256;exclude\n1,5.png;a;x\n2.png;b;\n",  # a spreadsheet where a comma is in numbers
        "exclude;sha256;file, size, class\nx;a;1.png\n;b;2.png\n",  # as many commas as semicolons
        "sha256\texclude\na\tx\n",
        'exclude, "sha256"\nx, "a"\n',  # spaces after the commas
        "\ufeffexclude,sha256\r\nx,a\r\n\r\n",  # Excel's
        'file,exclude,sha256\n"a ""b"",\nc.png",x,a\n',  # a name with a line break
        "file,exclude,sha256\nMünch\u2028en.png,x,a\n".encode("cp1252", "replace"),
        "exclude,sha256\nx,a\nx,a\nno,a\n",  # one mark is enough
    ],
)
def test_tables_as_spreadsheets_write_them(table, content):
    assert read_exclusions(table(content)) == {"a"}


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "it has no column exclude and no column sha256; expected the audit.csv"),
        ("sha256,file\na,b\n", "it has no column exclude; expected the audit.csv"),
        ("exclude,file\nx,b\n", "it has no column sha256; expected the audit.csv"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff", "it has no column exclude and no column sha256; expected the audit.csv"),
    ],
)
def test_other_files_are_an_error(table, content, message):
    with pytest.raises(ArgumentError) as error:
        read_exclusions(table(content))
    assert error.value.argument == "exclude" and error.value.message.startswith(message)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"not readable as a table \(\w+Error: .*; expected the audit.csv"):
        read_exclusions(tmp_path / name)


def test_unknown_digests_are_counted_in_one_line(table, caplog):
    images = Images("abcd", np.zeros(4, np.int64), ("cat",), ["a", "b", "a", "d"], lambda n: None)
    path = table("exclude,sha256\nx,a\nx,e\nx,f\n,d\n")
    with caplog.at_level("INFO"):
        assert list(excluded_images(images, path)) == [0, 2]
    assert f"{path}: 2 of its 3 excluded images are not in this data set" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        path = table("exclude,sha256\nx,d\n")
        assert excluded_images(images, path) == {3: (f"excluded by {path}", "")}
    assert not caplog.text


def test_data_without_excluded_images(folder, folder_data, table, caplog):
    """Also a copy of an excluded file is left out; all other images are as before."""
    (folder / "a" / "copy.png").write_bytes((folder / "a" / "4.png").read_bytes())
    images = Folder(folder).list_images(FileDigests())
    digests = {name.rpartition("/")[2]: digest for name, digest in zip(images.names, images.digests)}
    before = folder_data((3, 2, 2))
    path = table(f"exclude,sha256\nx,{digests['4.png']}\nX,{digests['7.png']}\n,{digests['8.png']}\n")
    with caplog.at_level("INFO"):
        data = folder_data((3, 2, 2), exclude=path)
    used = [data.images.names[index].rpartition("/")[2] for rows in data.splits.values() for index in rows]
    assert not {"4.png", "copy.png", "7.png"} & set(used) and len(used) == len(set(used)) == 14
    line = next(each for each in caplog.messages if "excluded by" in each)
    assert f"left out, excluded by {path}: 3" in line and "4.png" in line and "copy.png" in line and "7.png" in line
    assert not {4, 7} & {
        int(data.images.names[n].rpartition("/")[2][:-4]) for n in data.readable if "copy" not in data.images.names[n]
    }
    np.testing.assert_array_equal(data.pixels, before.pixels)
    assert before.exclude is None and len(before.readable) == 25


def test_excluding_too_many_is_the_splits_error(folder, folder_data, table):
    images = Folder(folder).list_images(FileDigests())
    rows = [f"x,{digest}" for digest, label in zip(images.digests, images.labels) if label == 0]
    with pytest.raises(ArgumentError, match="class 'a' has 1 image, but each of 3 splits"):
        folder_data((3, 2, 2), exclude=table("\n".join(["exclude,sha256", *rows[1:]])))


def test_an_unreadable_image_may_be_excluded(folder, folder_data, table):
    (folder / "a" / "broken.png").write_bytes(b"no image")
    images = Folder(folder).list_images(FileDigests())
    digest = next(digest for name, digest in zip(images.names, images.digests) if "broken" in name)
    data = folder_data((3, 2, 2), exclude=table(f"exclude,sha256\nx,{digest}\n"))
    assert len(data.readable) == 24


def test_an_excluded_image_needs_no_depth(folder, folder_data, table):
    """Its values from 0 to 255 in 16 bits would stop the run: is it 8 bits deep, or nearly black?"""
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(folder / "a" / "dark.tif")
    with pytest.raises(ArgumentError, match="depth=None"):
        folder_data((3, 2, 2))
    digest = hashlib.sha256((folder / "a" / "dark.tif").read_bytes()).hexdigest()
    assert len(folder_data((3, 2, 2), exclude=table(f"exclude,sha256\nx,{digest}\n")).readable) == 24
