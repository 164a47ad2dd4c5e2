import itertools
import shutil

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart
from transfer_learning.data.folds import assign_groups, cross_validation, ranks, subset
from transfer_learning.data.images import Images
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.folder import Folder
from transfer_learning.data.splits import Given
from transfer_learning.utilities.errors import ArgumentError


def images(labels, groups=None, prefix="image"):
    """Images whose bytes are a function of their position."""
    digests = [f"{prefix} {index}" for index in range(len(labels))]
    names = tuple(f"class {code}" for code in range(max(labels) + 1))
    return Images(digests, np.asarray(labels), names, digests, pytest.fail, groups=groups)


def shuffled(given, seed=0):
    """The same images listed in another order, under other names and names of groups; and where each one was."""
    order = np.random.default_rng(seed).permutation(len(given.labels))
    made = given.take(order)
    groups = made.groups and [f"{999 - int(group)} renamed" for group in made.groups]
    return Images([f"{n}.jpg" for n in order], made.labels, made.class_names, made.digests, pytest.fail, groups=groups)


def split(count, train=0.6, val=0.2):
    """The first images train, the next validate, the rest test."""
    return dict(
        zip(("train", "val", "test"), np.split(np.arange(count), [int(train * count), int((train + val) * count)]))
    )


def counts(labels, bins, number):
    """(B, C) images of each class in each bin."""
    return np.array([np.bincount(labels[bins == each], minlength=labels.max() + 1) for each in range(number)])


def error_of(labels, bins, targets):
    """The sum of squared differences from the targets, as shares of the classes: a plain loop."""
    total = 0.0
    for each in range(len(targets)):
        for code in range(labels.max() + 1):
            found = sum(1 for label, chosen in zip(labels, bins) if (label, chosen) == (code, each))
            total += ((found - targets[each][code]) / max(1, sum(labels == code))) ** 2
    return total


def grouped(rng, classes, number, mean_size, mixed):
    """Labels and groups of random sizes; the images of a group have one class or, mixed, several."""
    groups = np.repeat(np.arange(number), rng.geometric(1 / mean_size, number))
    of_group = np.concatenate([np.arange(classes), rng.integers(0, classes, number - classes)])
    return (rng.integers(0, classes, len(groups)) if mixed else of_group[groups]), groups


def stays_together(groups, bins):
    return all(len({bins[n] for n in np.flatnonzero(groups == group)}) == 1 for group in np.unique(groups))


@pytest.mark.parametrize("mixed", [False, True])
def test_groups_are_balanced_about_as_well_as_by_scikit_learn(mixed):
    rng, ours, theirs = np.random.default_rng(0), [], []
    for _ in range(40):
        folds = int(rng.integers(2, 6))
        labels, groups = grouped(rng, int(rng.integers(2, 5)), int(rng.integers(25, 60)), 4, mixed)
        targets = np.tile(np.bincount(labels) / folds, (folds, 1))
        bins = assign_groups(labels, groups, targets, rng.permutation(len(labels)))
        assert stays_together(groups, bins)
        ours.append(error_of(labels, bins, targets))
        chosen = np.empty_like(labels)
        for fold, (_, held) in enumerate(StratifiedGroupKFold(folds).split(labels, labels, groups)):
            chosen[held] = fold
        theirs.append(error_of(labels, chosen, targets))
    assert np.mean(ours) <= 1.02 * np.mean(theirs)
    assert np.mean(np.array(ours) <= np.array(theirs) + 1e-12) > 0.6


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.6, 0.2, 0.2), (0.5, 0.2, 0.2, 0.1)])
@pytest.mark.parametrize("mixed", [False, True])
def test_groups_of_few_images_are_assigned_almost_as_well_as_possible(shares, mixed):
    rng, ours, best = np.random.default_rng(1), [], []
    for _ in range(8):
        labels, groups = grouped(rng, 2, 6, 3, mixed)
        targets = np.outer(shares, np.bincount(labels))
        ours.append(error_of(labels, assign_groups(labels, groups, targets, np.arange(len(labels))), targets))
        every = itertools.product(range(len(shares)), repeat=6)
        best.append(min(_quick_error(labels, np.array(bins)[groups], targets) for bins in every))
    assert np.mean(ours) <= np.mean(best) + 0.02 and min(np.array(ours) - best) > -1e-9


def _quick_error(labels, bins, targets):
    return (((counts(labels, bins, len(targets)) - targets) / np.bincount(labels)) ** 2).sum()


def test_a_group_that_is_larger_than_all_small_bins_goes_to_the_large_one():
    groups = np.repeat([0, 1, 2, 3, 4, 5], [60, 10, 10, 10, 5, 5])
    labels = np.zeros(100, np.int64)
    bins = assign_groups(labels, groups, np.array([[60.0], [20], [20]]), np.arange(100))
    assert counts(labels, bins, 3).ravel().tolist() == [60, 20, 20]


def test_a_bin_that_should_stay_empty_does():
    labels, groups = grouped(np.random.default_rng(0), 3, 40, 4, True)
    sizes = np.bincount(labels)
    bins = assign_groups(labels, groups, np.array([sizes * 0.7, sizes * 0, sizes * 0.3]), np.arange(len(labels)))
    assert not (bins == 1).any() and (bins == 0).any() and (bins == 2).any()


def test_bins_are_a_function_of_the_images():
    labels, groups = grouped(np.random.default_rng(0), 3, 40, 4, True)
    order, moved = np.random.default_rng(1).permutation(len(labels)), np.random.default_rng(2).permutation(len(labels))
    targets = np.tile(np.bincount(labels) / 4, (4, 1))
    bins = assign_groups(labels, groups, targets, order)
    names = np.array([f"{100 - group}" for group in groups])
    assert np.array_equal(assign_groups(labels[moved], names[moved], targets, order[moved]), bins[moved])


def test_twenty_thousand_images_of_a_thousand_classes_take_less_than_two_seconds():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 1000, 20_000), rng.integers(0, 10_000, 20_000)
    targets = np.outer([0.6, 0.2, 0.1, 0.1], np.bincount(labels))
    for given in (groups, None):
        bins = assign_groups(labels, given, targets, rng.permutation(20_000))
        assert np.abs(np.bincount(bins) / 20_000 - [0.6, 0.2, 0.1, 0.1]).max() < 0.01


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("sizes", [(50, 50), (97, 13), (11, 23, 37, 41)])
def test_each_image_is_validated_once_and_the_test_split_stays(folds, sizes):
    given = images(np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)))
    before, validated = split(len(given.labels), 0.9, 0.05), []
    for fold in range(folds):
        after = cross_validation(given, before, folds, fold)
        assert list(after) == ["train", "val", "test"] and np.array_equal(after["test"], before["test"])
        assert sorted([*after["train"], *after["val"]]) == list(range(len(before["train"]) + len(before["val"])))
        assert after["train"].dtype == after["val"].dtype == np.int64
        validated.append(after["val"])
    pool = np.concatenate([before["train"], before["val"]])
    assert sorted(np.concatenate(validated)) == sorted(pool)
    per_class = np.array([np.bincount(given.labels[rows], minlength=len(sizes)) for rows in validated])
    assert np.ptp(per_class, axis=0).max() <= 1 and np.ptp(per_class.sum(axis=1)) <= 1


def test_many_small_classes_have_folds_of_equal_size():
    """Each class has a remainder; they do not all go to the same folds."""
    labels = np.repeat(np.arange(100), 7)
    sizes = [len(cross_validation(images(labels), split(700, 1, 0), 5, fold)["val"]) for fold in range(5)]
    assert sizes == [140] * 5


@pytest.mark.parametrize("mixed", [False, True])
def test_folds_keep_groups_together(mixed):
    labels, groups = grouped(np.random.default_rng(0), 3, 60, 4, mixed)
    given = images(labels, [str(group) for group in groups])
    before, of_fold = split(len(labels), 1, 0), np.full(len(labels), -1)
    for fold in range(5):
        after = cross_validation(given, before, 5, fold)
        assert not set(groups[after["train"]]) & set(groups[after["val"]])
        of_fold[after["val"]] = fold
    assert (of_fold >= 0).all() and stays_together(groups, of_fold)
    assert np.abs(counts(labels, of_fold, 5) - np.bincount(labels) / 5).max() <= 4


@pytest.mark.parametrize("with_groups", [False, True])
def test_folds_and_shares_are_a_function_of_the_images_bytes(with_groups):
    labels, groups = grouped(np.random.default_rng(0), 3, 60, 4, True)
    given = images(labels, [str(group) for group in groups] if with_groups else None)
    again, everything = shuffled(given), {"train": np.arange(len(labels)), "val": np.arange(0), "test": np.arange(0)}

    def contents(listed, indices):
        return [listed.digests[index] for index in indices]

    first, second = (cross_validation(listed, everything, 5, 2) for listed in (given, again))
    assert contents(given, first["val"]) == contents(again, second["val"])  # in the same order too
    assert contents(given, first["train"]) == contents(again, second["train"])
    shares = [contents(each, subset(each, found["train"], 0.3, 7)) for each, found in ((given, first), (again, second))]
    assert shares[0] == shares[1]


def test_a_split_mixes_its_classes():
    labels = np.repeat([0, 1], 100)
    train = cross_validation(images(labels), split(200), 5, 0)["train"]
    assert 20 < np.count_nonzero(np.diff(labels[train])) < 140


def test_without_folds_and_with_all_images_nothing_changes():
    given, before = images(np.arange(20) % 2), split(20)
    after = cross_validation(given, before, 0, 0)
    assert after == before and subset(given, before["train"], 1.0, 3) is before["train"]
    assert subset(given, before["train"], 1, 3) is before["train"]


@pytest.mark.parametrize(
    "folds, fold, groups, message",
    [
        (1, 0, None, "folds=1: expected 2 or more, or 0"),
        (0, 2, None, "fold=2: expected 0, or the number of folds too"),
        (5, 5, None, "fold=5: expected 0 to 4"),
        (9, 0, None, "folds=9: fewer images .*: class 'class 1' .8.. Take fewer folds, or more images"),
        (3, 0, [str(n % 2) for n in range(20)], "folds=3: fewer groups .*: class 'class 0' .2. and 1 more. Take"),
        (3, 0, [str(n // 10) for n in range(20)], "folds=3: fewer groups .*: class 'class 0' .2. and 1 more. Take"),
        (3, 0, ["a", "b", "c", *["a", "b"] * 8, "d"], "folds=3: fewer groups .*: class 'class 1' .1.. Take"),
    ],
)
def test_folds_that_are_not_possible_are_refused(folds, fold, groups, message):
    labels = np.array([0, 0, 0, *[0, 1] * 8, 0])
    with pytest.raises(ArgumentError, match=message) as error:
        cross_validation(images(labels, groups), split(20, 1, 0), folds, fold)
    assert error.value.argument == message.partition("=")[0]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("sizes", [(1500, 1500), (100, 7), (1, 2, 3)])
def test_a_share_has_the_images_of_each_class_that_are_closest_to_it(share, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    taken = subset(images(labels), np.arange(len(labels)), share, 0)
    found = np.bincount(labels[taken], minlength=len(sizes))
    assert all(max(1, share * size - 0.5) <= count <= max(1, share * size + 0.5) for count, size in zip(found, sizes))
    assert (np.diff(taken) > 0).all()  # in the order of the indices


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("groups_are_known", [False, True])
def test_a_smaller_share_is_part_of_a_larger_one_and_another_seed_takes_others(mixed, groups_are_known):
    labels, groups = grouped(np.random.default_rng(0), 3, 60, 4, mixed)
    given = images(labels, [str(group) for group in groups] if groups_are_known else None)
    indices = np.random.default_rng(1).permutation(len(labels))[:150]
    taken = [set(subset(given, indices, share, 0).tolist()) for share in (0.01, 0.03, 0.1, 0.3, 0.7, 1.0)]
    assert all(small <= large for small, large in itertools.pairwise(taken)) and taken[-1] == set(indices.tolist())
    assert taken[3] != set(subset(given, indices, 0.3, 1).tolist())


@pytest.mark.parametrize("mixed", [False, True])
def test_a_share_takes_whole_groups(mixed):
    labels, groups = grouped(np.random.default_rng(0), 3, 200, 4, mixed)
    given = images(labels, [str(group) for group in groups])
    for share in (0.01, 0.1, 0.5):
        taken = subset(given, np.arange(len(labels)), share, 0)
        assert np.isin(np.flatnonzero(np.isin(groups, groups[taken])), taken).all()
        found = np.bincount(labels[taken], minlength=3)
        assert (found >= 1).all() and np.abs(found - share * np.bincount(labels)).max() <= 0.05 * len(labels) / 3 + 4


def test_ranks_are_an_order_that_the_salt_changes():
    digests = [f"image {n}" for n in range(50)]
    assert sorted(ranks(digests, "a")) == list(range(50))
    assert not np.array_equal(ranks(digests, "a"), ranks(digests, "b"))
    assert np.array_equal(ranks(digests[::-1], "a"), ranks(digests, "a")[::-1])


def test_known_folds_and_shares_stay_what_they_are():
    """Stored results: if this changes, everybody's folds have changed."""
    given, everything = images(np.arange(12) % 2), split(12, 1, 0)
    assert cross_validation(given, everything, 3, 1)["val"].tolist() == [1, 8, 5, 10]
    assert subset(given, everything["train"], 0.4, 0).tolist() == [6, 7, 8, 11]


def test_data_module_validates_each_image_once(folder_data):
    folds = [folder_data(folds=3, fold=fold) for fold in range(3)]
    held = [data.images.digests[index] for data in folds for index in data.splits["val"]]
    assert len(held) == len(set(held)) == 18
    assert len({tuple(data.splits["test"]) for data in folds}) == 1
    assert [len(data.splits["train"]) for data in folds] == [12] * 3


def test_copies_in_given_splits_are_in_one_fold(tmp_path, write_image):
    for number, (split, label) in enumerate(itertools.product(("train", "val", "test"), "ab")):
        for image in range(6):
            path = write_image(tmp_path / "images" / split / label / f"{image}.png", 10 * number + image)
            if split != "train":
                shutil.copy(path, path.with_name(f"{image} copy.png"))
    for fold in range(3):
        data = ImageDataModule(
            Folder(tmp_path / "images"), Given(), Preprocessing(16), folds=3, fold=fold, cache_dir=tmp_path / "cache"
        )
        data.list_images()
        digests = {split: [data.images.digests[n] for n in rows] for split, rows in data.splits.items()}
        assert not set(digests["train"]) & set(digests["val"]) and len(digests["train"] + digests["val"]) == 24
        assert len(digests["test"]) == 24  # given test images all stay


def test_data_module_trains_with_a_share_that_is_smaller_than_a_batch(folder_data):
    data, everything = folder_data(train_share=0.2, batch_size=5), folder_data(batch_size=5)
    assert np.bincount(data.labels[data.splits["train"]]).tolist() == [1, 1]
    assert set(data.splits["train"]) < set(everything.splits["train"])
    assert all(np.array_equal(data.splits[split], everything.splits[split]) for split in ("val", "test"))
    assert [len(batch.targets) for batch in data.train_dataloader()] == [2]


@pytest.mark.parametrize(
    "settings, argument",
    [
        ({"train_share": 0}, "train_share"),
        ({"train_share": 1.1}, "train_share"),
        ({"train_share": "all"}, "train_share"),
        ({"folds": -1}, "folds"),
        ({"folds": 2.5}, "folds"),
        ({"folds": 1}, "folds"),
        ({"fold": 1}, "fold"),
        ({"folds": 3, "fold": 3}, "fold"),
        ({"folds": 10, "fold": 0}, "folds"),
        ({"share_seed": -1}, "share_seed"),
    ],
)
def test_wrong_folds_and_shares_are_named(folder_data, settings, argument):
    with pytest.raises(ArgumentError, match="expected|Take fewer folds") as error:
        folder_data(**settings)
    assert error.value.argument == argument


def test_features_are_computed_once_for_all_folds(folder_data):
    computed = []

    def forward(inputs):
        computed.append(len(inputs))
        return inputs.mean(dim=(2, 3))

    part = FrozenPart(forward, torch.device("cpu"), {"weights": "a"})
    for fold in range(3):
        data = folder_data(folds=3, fold=fold)
        data.store_features(part)
        assert len(computed) == 3  # a batch for each split of the first fold
        stored = data.features["val"]
        pixels = torch.from_numpy(data.pixels[data.splits["val"]]).float().div(255).mean(dim=(1, 2))
        assert torch.allclose(torch.from_numpy(stored.array[stored.rows[0]]), pixels, atol=1e-6)


def test_a_class_of_the_test_alone_has_no_folds():
    given = images([0, 1] * 6 + [2])
    after = cross_validation(given, split(13, 0.7, 0.23), 3, 0)
    assert after["test"].tolist() == [12] and len(after["val"]) == 4 and len(after["train"]) == 8
