import os

from transfer_learning.utilities.text import printable, shortened, some


def test_names_that_are_not_unicode_are_escaped():
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\udce9"
    assert printable("Ñandú 猫") == "Ñandú 猫"


def test_characters_that_change_a_terminal_are_escaped():
    assert printable("a\x1b[2Jb\r\n\x00\x9b") == r"a\x1b[2Jb\r\n\x00\x9b"
    assert printable("cat\u202egpj.exe\u2028") == r"cat\u202egpj.exe\u2028"
    family = "\U0001f468\u200d\U0001f469"  # an emoji of several characters
    assert printable(family) == family


def test_what_cannot_be_seen_is_escaped():
    assert printable("cat\u200b") == r"cat\u200b" and printable("\ufeffcat\xad\u2060") == r"\ufeffcat\xad\u2060"
    assert printable("\u3000cat\xa0\xa0") == r"\u3000cat\xa0\xa0"
    for name in ("10\xa0000 km", " cat ", "\u0645\u06cc\u200c\u062e", "\u2764\ufe0f"):  # Persian, a red heart
        assert printable(name) == name


def test_the_first_of_many_names():
    assert some([]) == "" and some(["a"]) == "a" and some(["a", "b", "c"]) == "a, b, c"
    assert some([str(n) for n in range(2003)]) == "0, 1, 2 and 2,000 more"
    assert some(["a", "b", "c"], 1) == "a and 2 more"


def test_a_name_is_cut_by_its_bytes():
    assert shortened("x" * 9, 8) == "x" * 8 and shortened("x", 8) == "x"
    assert shortened("猫" * 3, 8) == "猫猫" and len(shortened("é" * 300, 99).encode()) == 98
    assert shortened(os.fsdecode(b"caf\xe9"), 100) == "caf\\udce9"
