import os

from transfer_learning.utilities.text import printable, some


def test_names_that_are_not_unicode_are_escaped():
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\udce9"
    assert printable("Ñandú 猫") == "Ñandú 猫"


def test_the_first_of_many_names():
    assert some([]) == "" and some(["a"]) == "a" and some(["a", "b", "c"]) == "a, b, c"
    assert some([str(n) for n in range(2003)]) == "0, 1, 2 and 2,000 more"
    assert some(["a", "b", "c"], 1) == "a and 2 more"
