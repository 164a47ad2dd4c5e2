import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_learning.data.split import distinct, split
from transfer_learning.errors import UserError

LABELS = np.array([0, 1] * 50)
DIGESTS = [f"image {index}" for index in range(100)]
COUNTS = {"train": 30, "val": 10, "test": 5}


def contents(parts, digests=DIGESTS):
    return {part: [digests[index] for index in rows] for part, rows in parts.items()}


def test_parts_are_disjoint_and_stratified():
    parts = split(LABELS, DIGESTS, ("cat", "dog"), COUNTS, seed=0)
    for part, count in COUNTS.items():
        assert np.bincount(LABELS[parts[part]]).tolist() == [count, count]
    assert len(set(np.concatenate(list(parts.values())))) == 90


SIZE = st.one_of(st.integers(-1, 40), st.floats(-0.1, 1.1, allow_subnormal=False))  # set_up_cpu makes 0 of those


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=4), SIZE, SIZE, SIZE)
def test_whatever_is_asked_for_it_is_given_or_refused(class_sizes, train, val, test):
    labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
    digests, per_class = [f"image {index}" for index in range(len(labels))], {"train": train, "val": val, "test": test}

    def possible(size):
        counts = [int(n * size + 1e-9) if isinstance(n, float) else n for n in per_class.values()]
        return (
            min(counts) >= 1
            and sum(counts) <= size
            and all(n > 0 and (isinstance(n, int) or n <= 1) for n in per_class.values())
        )

    try:
        parts = split(labels, digests, [f"class {code}" for code in range(len(class_sizes))], per_class, seed=0)
    except UserError:
        assert not all(possible(size) for size in class_sizes)
        return
    assert all(possible(size) for size in class_sizes)
    assert len(set(np.concatenate(list(parts.values())))) == sum(map(len, parts.values()))
    for part, n in per_class.items():
        expected = [int(n * size + 1e-9) if isinstance(n, float) else n for size in class_sizes]
        assert np.bincount(labels[parts[part]], minlength=len(class_sizes)).tolist() == expected


def test_a_part_mixes_its_classes():
    labels = LABELS[split(LABELS, DIGESTS, ("cat", "dog"), COUNTS, seed=0)["train"]]
    assert 1 < np.count_nonzero(np.diff(labels)) < 59


def test_place_follows_from_seed_and_content_alone():
    parts = split(LABELS, DIGESTS, ("cat", "dog"), COUNTS, seed=3)
    shuffled = np.random.default_rng(0).permutation(100)
    again = split(LABELS[shuffled], [DIGESTS[index] for index in shuffled], ("cat", "dog"), COUNTS, seed=3)
    assert contents(parts) == contents(again, [DIGESTS[index] for index in shuffled])
    assert contents(parts) != contents(split(LABELS, DIGESTS, ("cat", "dog"), COUNTS, seed=4))


def test_a_known_split_stays_what_it_is():
    """Read off once: if this changes, everybody's split has changed."""
    parts = split(LABELS[:6], DIGESTS[:6], ("cat", "dog"), {"train": 1, "val": 1, "test": 1}, seed=0)
    assert contents(parts) == {
        "train": ["image 3", "image 2"],
        "val": ["image 5", "image 4"],
        "test": ["image 1", "image 0"],
    }


def test_fractions_are_shares_of_each_class():
    labels = np.array([0] * 10 + [1] * 35)
    parts = split(labels, DIGESTS[:45], ("cat", "dog"), {"train": 0.6, "val": 0.2, "test": 0.2}, seed=0)
    assert [np.bincount(labels[rows]).tolist() for rows in parts.values()] == [[6, 21], [2, 7], [2, 7]]


def test_too_few_images():
    with pytest.raises(UserError, match=r"class 'cat' has 50 images, but 65 are asked for .*data\.train_per_class=50"):
        split(LABELS, DIGESTS, ("cat", "dog"), {"train": 50, "val": 10, "test": 5}, seed=0)


@pytest.mark.parametrize("count", [0, -1, 0.001, 1.5, True, None, "abc"])
def test_what_is_no_number_of_images(count):
    with pytest.raises(UserError, match=f"data.val_per_class={count}"):
        split(LABELS, DIGESTS, ("cat", "dog"), {"train": 10, "val": count, "test": 5}, seed=0)


def test_distinct_keeps_one_copy_and_drops_contradictions():
    labels = np.array([0, 0, 1, 1, 0, 1])
    assert distinct(labels, ["a", "a", "b", "c", "d", "d"]).tolist() == [0, 2, 3]
