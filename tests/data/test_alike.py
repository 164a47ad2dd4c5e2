import pytest

from transfer_learning.data.alike import log_alike

NFC, NFD = "caf\u00e9", "cafe\u0301"


def remarks(caplog, *arguments):
    with caplog.at_level("INFO"):
        log_alike(*arguments)
    return [record.message for record in caplog.records]


@pytest.mark.parametrize(
    "names, kinds, shown",
    [
        (("a", "A"), "case", "A and a"),
        (("cat", "cat\u200b"), "invisible characters", r"'cat' and 'cat\u200b'"),
        (("cat", "\ufeffcat"), "invisible characters", r"'cat' and '\ufeffcat'"),
        (("a\u200db", "ab"), "invisible characters", r"'ab' and 'a\u200db'"),
        (("dog", "dog\xa0"), "spaces", r"'dog' and 'dog\xa0'"),
        (("big dog", "big\xa0dog", "big  dog "), "spaces", r"'big  dog ' and 'big dog' and 'big\xa0dog'"),
        ((NFC, NFD), "how accents are encoded", rf"'cafe\u0301' and '{NFC}'"),
        (
            (NFC.upper(), NFD),
            "how accents are encoded and case",
            r"'CAF\xc9' and 'cafe\u0301'".replace(r"\xc9", "\xc9"),
        ),
        (("K", "\u212a"), "characters that look alike", "'K' and '\\u212a'"),  # Kelvin
        (("cat", "cat\n"), "characters that look alike", r"'cat' and 'cat\n'"),
        (("Cat", "cat\u2060"), "invisible characters and case", r"'Cat' and 'cat\u2060'"),
        (("1", "1.0", "01"), "how a number is written", "'01' and '1' and '1.0'"),
        (("-2.50", "-2.5"), "how a number is written", "'-2.5' and '-2.50'"),
    ],
)
def test_in_what_names_differ_is_said(caplog, names, kinds, shown):
    expected = f"names that differ only in {kinds} are different classes here: {shown}"
    assert remarks(caplog, names, names) == [expected]


def test_names_that_are_not_alike_are_not_named(caplog):
    assert (
        remarks(caplog, ["1", "10", "-1", "1.01", "1_0", "1e1", "a1", "a01", "v1.0", "caf\udce9", "caf\udce8"], [])
        == []
    )


def test_whether_names_stand_for_one_thing_is_said(caplog):
    lines = remarks(caplog, ["Cat", "cat", "dog", "dog ", "b", "B"], ["Cat", "dog", "b", "B"], "group")
    assert lines == [
        "names that differ only in case are different groups here: B and b",
        "names that differ only in case are one group here: Cat and cat",
        "names that differ only in spaces are one group here: 'dog' and 'dog '",
    ]
