import numpy as np
import pytest
import torch
from torch import nn

from transfer_learning.data import features
from transfer_learning.data.augmentation import Augmentation
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart, compute_features
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.folder import Folder
from transfer_learning.engine.training import frozen_part
from transfer_learning.models.network import Frozen, Network
from transfer_learning.utilities.errors import ArgumentError, UserError

CPU = torch.device("cpu")


class MeanColours:
    """A frozen part that computes the mean colour of each image, and keeps the batches that it got."""

    def __init__(self, **key):
        self.batches = []
        self.part = FrozenPart(self.forward, CPU, {"weights": "a"} | key)

    def forward(self, images):
        assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
        self.batches.append(images.clone())
        return images.mean(dim=(2, 3))

    @property
    def count(self):
        """Different images that were computed."""
        return sum(len(batch.flatten(1).unique(dim=0)) for batch in self.batches)


@pytest.fixture
def computed(folder_data):
    """computed(key=..., **settings): a data module that hands out mean colours, and the number of images computed."""

    def make(key=None, **settings):
        data, colours = folder_data(**settings), MeanColours(**key or {})
        data.store_features(colours.part)
        return data, colours.count

    return make


def features_files(tmp_path):
    return list((tmp_path / "cache").glob("features-*.rows"))


def plain_colours(data, split):
    return torch.from_numpy(data.pixels[data.splits[split]]).float().mean(dim=(1, 2)) / 255


def test_features_are_computed_once_and_then_handed_out(computed, inputs_of):
    data, count = computed()
    assert count == 24  # each image of the three splits
    for split in ("train", "val", "test"):
        torch.testing.assert_close(inputs_of(data, split, epoch=2), plain_colours(data, split))
    again, count = computed(order_seed=3)
    assert count == 0 and torch.equal(inputs_of(again, "val"), inputs_of(data, "val"))


def test_other_splits_of_the_same_images_share_their_features(computed, inputs_of, tmp_path):
    first, count = computed(per_class=(2, 1, 1))  # 8 images
    assert count == 8
    known = {first.images.digests[index] for indices in first.splits.values() for index in indices}
    for settings in ({"per_class": (4, 2, 2)}, {"per_class": (2, 1, 1), "seed": 1}, {}, {"seed": 7}):
        data, count = computed(batch_size=4, **settings)
        digests = {data.images.digests[index] for indices in data.splits.values() for index in indices}
        assert count == len(digests - known)  # only those that are missing
        known |= digests
        for split in data.splits:
            torch.testing.assert_close(inputs_of(data, split), plain_colours(data, split))
    assert len(known) == 24 and len(features_files(tmp_path)) == 1


def test_all_folds_of_a_cross_validation_share_one_pass(folder, tmp_path, inputs_of):
    counts = []
    for fold in range(4):

        def split(images, fold=fold):
            folds = np.roll(np.arange(24).reshape(4, 6), fold, axis=0)
            return {"train": folds[2:].ravel(), "val": folds[1], "test": folds[0]}

        data = ImageDataModule(Folder(folder), split, Preprocessing(16), batch_size=5, cache_dir=tmp_path / "cache")
        colours = MeanColours()
        data.store_features(colours.part)
        counts.append(colours.count)
        torch.testing.assert_close(inputs_of(data, "test"), plain_colours(data, "test"))
    assert counts == [24, 0, 0, 0]


def test_a_new_image_in_the_folder_is_the_only_one_computed(computed, folder, write_image):
    computed()
    write_image(folder / "a" / "0 new.png", seed=99)  # the indices of all others change
    write_image(folder / "b" / "0 new.png", seed=98)
    assert computed(per_class=(7, 3, 3))[1] == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 8},
        {"interpolation": "nearest"},
        {"resize": "crop"},
        {"depth": "image"},
        {"key": {"weights": "b"}},
        {"key": {"precision": "bf16-mixed"}},
        {"key": {"device": "cuda"}},
        {"key": {"compiled": True}},
    ],
)
def test_another_preprocessing_or_frozen_part_is_another_file(computed, tmp_path, settings):
    base = {"precision": "32-true", "device": "cpu", "compiled": False}
    computed(key=base)
    assert computed(**settings | {"key": base | settings.get("key", {})})[1] == 24
    assert len(features_files(tmp_path)) == 2
    assert computed(key=base)[1] == 0


def test_weights_precision_device_type_and_compilation_are_in_a_networks_key(
    folder_data, classifier, quiet_trainer, inputs_of, tmp_path, monkeypatch
):
    def model(seed):
        torch.manual_seed(seed)
        frozen, trainable = Frozen(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.Flatten(), nn.Linear(4 * 14 * 14, 1))
        return classifier(Network(frozen, trainable, {}), 16)

    data, plain = folder_data(), quiet_trainer()
    made = [
        (model(0), plain, False, torch.float32),
        (model(1), plain, False, torch.float32),
        (model(0), quiet_trainer(precision="bf16-mixed"), False, torch.bfloat16),
        (model(0), quiet_trainer(precision="64-true"), False, torch.float64),
        (model(0), plain, True, torch.float32),
    ]
    for number, (network, trainer, compiled, dtype) in enumerate(made, 1):
        part = frozen_part(network, trainer, compiled)
        for _ in range(2):  # the second time from the cache
            data.store_features(part)
            assert len(features_files(tmp_path)) == number
            assert inputs_of(data, "val").dtype == dtype and inputs_of(data, "val").shape == (6, 4, 14, 14)
    keys = [dict(frozen_part(network, trainer, compiled).key) for network, trainer, compiled, _ in made]
    monkeypatch.setattr(type(plain.strategy), "root_device", torch.device("meta"))
    keys.append(dict(frozen_part(model(0), plain).key))
    assert len({str(sorted(key.items())) for key in keys}) == len(keys)


def test_fresh_augmentation_has_no_features_but_validation_and_test_have(computed, inputs_of):
    data, count = computed(augment=True)
    assert count == 12 and set(data.features) == {"val", "test"}
    assert next(iter(data.train_dataloader())).inputs.dtype == torch.uint8
    assert inputs_of(data, "val").shape == (6, 3)


def test_the_features_of_views_are_computed_once_for_all_epochs_and_orders(computed, inputs_of):
    data, count = computed(augment=True, views=3)
    assert count == 3 * 12 + 12
    for seed in (0, 7):
        other, count = computed(augment=True, views=3, order_seed=seed)
        assert count == 0
        for epoch in range(3):
            chosen = [view_colours(data, view)[image] for image, view in enumerate(other.chosen_views(epoch))]
            torch.testing.assert_close(inputs_of(other, "train", epoch), torch.stack(chosen))
        met = np.array([other.chosen_views(epoch) for epoch in range(40)])
        assert all(set(views) == {0, 1, 2} for views in met.T)  # every view of every image
        assert len(np.unique(met, axis=0)) == 40  # and not all images the same view
    assert not np.array_equal(data.chosen_views(0), other.chosen_views(0))


def view_colours(data, view):
    """What Affine makes of the training images in a view: a function of (view_seed, view, image)."""
    plain = torch.from_numpy(data.pixels[data.splits["train"]]).permute(0, 3, 1, 2) / 255
    parameters = Affine().sample(len(data.pixels), np.random.default_rng((data.view_seed, view)))[data.splits["train"]]
    return Affine().apply(plain, torch.zeros(len(plain)), torch.from_numpy(parameters))[0].mean(dim=(2, 3))


def test_views_are_stored_by_their_augmentation_parameters(computed):
    first, _ = computed(augment=True, views=3)
    assert computed(augment=True, views=4)[1] == 12  # one more view
    assert computed(augment=True, views=2)[1] == 0
    assert computed(augment=True, views=3, augmentation=Affine(rotation=10))[1] == 3 * 12
    assert computed(augment=True, views=3, view_seed=1)[1] == 3 * 12
    other, count = computed(augment=True, views=3, seed=1)  # another split
    new = {split: set(other.splits[split]) - set(first.splits[split]) for split in ("train", "val", "test")}
    without_views = (new["val"] | new["test"]) & set(first.splits["train"])
    assert new["train"] and count == 3 * len(new["train"]) + len(without_views)


def test_a_higher_step_version_computes_views_anew_and_images_without_augmentation_not(computed, monkeypatch):
    computed(augment=True, views=2)
    monkeypatch.setattr(Affine, "version", Affine.version + 1)
    assert computed(augment=True, views=2)[1] == 2 * 12
    assert computed(augment=True, views=2)[1] == 0


class Brighter:
    """Adds a constant; the parameters do not depend on it."""

    version = 1

    def __init__(self, amount):
        self.amount = amount

    def sample(self, count, generator):
        return np.ones((count, 1), dtype=np.float32)

    def apply(self, images, targets, parameters):
        return (images + self.amount).clamp(0, 1), targets


def test_another_setting_or_another_list_of_steps_computes_views_anew(computed):
    for steps in (Brighter(0.1), Brighter(0.2), [Brighter(0.1), Brighter(0.2)], [Brighter(0.2), Brighter(0.1)]):
        assert computed(augment=True, views=1, augmentation=steps)[1] in (12, 24)
        assert computed(augment=True, views=1, augmentation=steps)[1] == 0


def test_views_of_another_size_have_a_file_of_their_own(folder_data, tmp_path, inputs_of):
    """Rows of one file have one shape."""
    data = folder_data(
        augment=True, views=2, augmentation=RandomResizedCrop(scale=(1, 1), ratio=(1, 1), size=24, flip=0)
    )
    data.store_features(FrozenPart(lambda images: images, CPU, {"weights": "a"}))
    assert len(features_files(tmp_path)) == 2
    assert inputs_of(data, "train").shape == (12, 3, 24, 24)
    expected = torch.from_numpy(data.pixels[data.splits["val"]]).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(inputs_of(data, "val"), expected)


class OneHot:
    """Turns class codes into probabilities; `one_hot` accepts integers only."""

    version = 1

    def sample(self, count, generator):
        return np.zeros((count, 1), dtype=np.float32)

    def apply(self, images, targets, parameters):
        return images, nn.functional.one_hot(targets, 2).float()


def test_views_of_a_step_that_changes_targets_are_refused(computed):
    with pytest.raises(ArgumentError, match="^views=2: expected 0: an augmentation step changes the targets"):
        computed(augment=True, views=2, augmentation=OneHot())
    assert computed(augment=True, augmentation=OneHot())[1] == 12


def test_a_split_may_be_empty(folder, tmp_path):
    def split(images):
        return {"train": np.arange(12), "val": np.arange(12, 18), "test": np.arange(0)}

    data = ImageDataModule(Folder(folder), split, Preprocessing(16), cache_dir=tmp_path / "cache")
    colours = MeanColours()
    data.store_features(colours.part)
    assert colours.count == 18 and list(data.test_dataloader()) == []


def test_features_of_some_splits_only(folder_data, inputs_of):
    data, colours = folder_data(), MeanColours()
    data.store_features(colours.part, splits=("train", "val"))
    assert colours.count == 18 and set(data.features) == {"train", "val"}
    assert inputs_of(data, "val").shape == (6, 3) and inputs_of(data, "test").shape == (6, 3, 16, 16)


def test_without_a_frozen_part_images_are_handed_out_again(computed):
    data, _ = computed()
    data.store_features(None)
    assert not data.features and next(iter(data.val_dataloader())).inputs.shape == (5, 16, 16, 3)


def test_the_frozen_part_gets_batches_of_32_images_only(folder_data):
    for settings in ({"per_class": (1, 1, 1)}, {}, {"augment": True, "views": 2}):
        data, colours = folder_data(**settings), MeanColours()
        data.store_features(colours.part)
        assert {tuple(batch.shape) for batch in colours.batches} == {(32, 3, 16, 16)}


@pytest.mark.parametrize(
    ("device", "size", "images"),
    [("cpu", 64, 32), ("cpu", 384, 32), ("mps", 64, 32), ("cuda", 224, 128), ("cuda", 150, 256), ("cuda", 64, 256),
     ("cuda", 300, 64), ("cuda", 1000, 32)],
)  # fmt: skip
def test_the_batch_depends_on_the_device_and_the_size_of_the_images_alone(device, size, images):
    assert features.batch_size(size, torch.device(device)) == images


def test_features_of_another_batch_size_are_the_same_but_for_rounding_and_are_stored_apart(
    folder_data, tmp_path, monkeypatch
):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())
    part = FrozenPart(lambda images: network(images).detach(), torch.device("cpu"), {"weights": "these"})
    data = folder_data()
    data.store_features(part)
    expected = data.features["train"].array[data.features["train"].rows]
    monkeypatch.setattr(features, "batch_size", lambda size, device: 3)
    other = folder_data()
    other.store_features(part)
    found = other.features["train"].array[other.features["train"].rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert len(features_files(tmp_path)) == 2


@pytest.fixture
def random_images():
    """300 images at 8 x 8, their digests, and features(forward, indices, folder): their features."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    digests = [f"image {index}" for index in range(300)]

    def features(forward, indices, folder):
        part, no_steps = FrozenPart(forward, CPU, {"weights": "a"}), Augmentation([])
        array, rows = compute_features(part, pixels, digests, np.asarray(indices), [()], no_steps, {}, folder)
        return np.array(array[rows[0]])

    return features


def test_the_features_of_an_image_do_not_depend_on_which_others_are_missing(random_images, tmp_path):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(128, 10)).eval()

    def forward(images):
        with torch.no_grad():
            return layers(images) + len(images)

    expected = random_images(forward, range(300), tmp_path / "at once")
    for some in ([299], range(7, 40), range(0, 300, 3)):
        random_images(forward, some, tmp_path / "bit by bit")
    assert np.array_equal(random_images(forward, range(300), tmp_path / "bit by bit"), expected)


def test_features_that_were_stored_before_an_interruption_are_kept(random_images, tmp_path):
    seen = []

    def forward(images, fail_at=None):
        if len(seen) == fail_at:
            raise KeyboardInterrupt
        seen.append(len(images.flatten(1).unique(dim=0)))
        return images.mean(dim=(2, 3))

    with pytest.raises(KeyboardInterrupt):
        random_images(lambda images: forward(images, fail_at=9), range(300), tmp_path)
    stored, lost = 256, 32  # a chunk has 256 images
    assert sum(seen) == stored + lost
    seen.clear()
    resumed = random_images(forward, range(300), tmp_path)
    assert sum(seen) == 300 - stored
    assert np.array_equal(resumed, random_images(forward, range(300), tmp_path / "other"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_not_stored(folder_data, tmp_path, value):
    data = folder_data()
    part = FrozenPart(lambda images: images.mean(dim=(2, 3)) * value, torch.device("cpu"), {})
    with pytest.raises(UserError, match="the features of the frozen part contain NaN or infinite values"):
        data.store_features(part)
    assert not features_files(tmp_path)
