import pytest

from transfer_learning.data.delimiter import delimiter_of


@pytest.mark.parametrize(
    "header, delimiter",
    [
        ("file,label", ","),
        ("file;label\n", ";"),
        ("file\tlabel", "\t"),
        ("label | file", "|"),
        ("label;file;width, height, depth, size", ";"),  # more commas, but not between the columns
        ('"file","label;class;kind"', ","),
        ("a;b;c,d", ";"),  # no column is known: the frequent one
    ],
)
def test_the_delimiter_is_the_one_with_which_the_columns_are_found(header, delimiter):
    assert delimiter_of(header, {"file", "label"}) == delimiter
