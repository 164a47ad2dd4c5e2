from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_learning.data.augment import augment, draw
from transfer_learning.data.module import ImageFolder
from transfer_learning.errors import UserError


@pytest.fixture
def folder(tmp_path, write_image):
    """Two classes of 12 photographs each, of several sizes."""
    for seed in range(24):
        write_image(tmp_path / "photographs" / "ab"[seed % 2] / f"{seed}.png", seed, size=(20 + seed, 30))
    return tmp_path / "photographs"


def trainer(world_size, rank, device="cpu"):
    return SimpleNamespace(
        world_size=world_size, global_rank=rank, strategy=SimpleNamespace(root_device=torch.device(device))
    )


def image_folder(folder, **settings):
    defaults = dict(
        image_size=16,
        batch_size=5,
        train_per_class=6,
        val_per_class=3,
        test_per_class=3,
        cache_dir=folder.parent / "cache",
    )
    data = ImageFolder(folder, **defaults | settings)
    data.setup()
    return data


def epoch_of(data, epoch=0):
    """(N, 3, H, W) images and (N,) labels of one epoch, as a model gets them."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = [data.on_after_batch_transfer(batch) for batch in loader]
    return torch.cat([batch.x for batch in batches]), torch.cat([batch.labels for batch in batches])


def test_pixels_are_the_files_stretched_and_in_rgb(folder):
    data = image_folder(folder)
    images = data.find()
    for name, label, row in zip(images.names, images.labels, data.pixels):
        with Image.open(name) as image:
            expected = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        assert np.array_equal(row, expected) and name.split("/")[-2] == "ab"[label]


def test_nearest_is_another_cache(folder):
    nearest, bilinear = image_folder(folder, interpolation="nearest"), image_folder(folder)
    assert not np.array_equal(nearest.pixels, bilinear.pixels)
    assert len(list((folder.parent / "cache").glob("*.npy"))) == 2


def test_a_changed_file_is_decoded_again(folder, write_image):
    before = np.array(image_folder(folder).pixels)
    write_image(folder / "a" / "0.png", seed=99, size=(20, 30))
    assert (image_folder(folder).pixels != before).any(axis=(1, 2, 3)).sum() == 1


def test_images_stay_bytes_until_the_device_and_become_channels_last_floats(folder):
    data = image_folder(folder, augment=True)
    batch = next(iter(data.train_dataloader()))
    assert batch.x.shape == (5, 16, 16, 3) and batch.x.dtype == torch.uint8
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        images = data.on_after_batch_transfer(batch).x
        assert (
            images.shape == (5, 3, 16, 16) and images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1
        )
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_a_float_is_its_byte_over_255(folder):
    data = image_folder(folder)
    batch = next(iter(data.val_dataloader()))
    expected = batch.x.numpy().transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_allclose(data.on_after_batch_transfer(batch).x.numpy(), expected, rtol=1e-6)


def test_an_epoch_shows_each_training_image_once_in_an_order_of_its_own(folder):
    data = image_folder(folder)
    first, again, second = epoch_of(data, 0)[0], epoch_of(image_folder(folder), 0)[0], epoch_of(data, 1)[0]
    assert torch.equal(first, again) and not torch.equal(first, second)

    def sort(images):
        return sorted(images.flatten(1).sum(1).tolist())

    expected = data.pixels[data.parts["train"]].astype(np.float32) / 255
    np.testing.assert_allclose(sort(first), sorted(expected.sum(axis=(1, 2, 3))), rtol=1e-4)
    np.testing.assert_allclose(sort(first), sort(second), rtol=1e-5)


def test_order_follows_its_own_seed_and_the_split_does_not(folder):
    one, other = image_folder(folder), image_folder(folder, order_seed=1)
    assert all(np.array_equal(one.parts[part], other.parts[part]) for part in one.parts)
    assert not torch.equal(epoch_of(one)[1], epoch_of(other)[1]) or not torch.equal(
        epoch_of(one)[0], epoch_of(other)[0]
    )


@pytest.mark.parametrize("views", [0, 2])
def test_augmentation_depends_on_neither_batch_size_nor_device_count(folder, views):
    """Each image of an epoch, found by its position, is what `augment` makes of it with its row of the epoch's table."""
    data = image_folder(folder, augment=True, views=views)
    rows = data.parts["train"]
    plain = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2) / 255
    for epoch in (0, 3):
        expected = augment(plain, torch.from_numpy(data.draws(epoch)))
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        order = list(loader.sampler)
        torch.testing.assert_close(epoch_of(data, epoch)[0], expected[order])
        torch.testing.assert_close(
            epoch_of(image_folder(folder, augment=True, views=views, batch_size=7), epoch)[0], expected[order]
        )
        for rank in range(2):
            half = image_folder(folder, augment=True, views=views, batch_size=6)
            half.trainer = trainer(2, rank)
            torch.testing.assert_close(epoch_of(half, epoch)[0], expected[order[rank::2]])


def test_evaluation_on_several_devices_counts_each_image_once(folder):
    data = image_folder(folder, val_per_class=0.25, test_per_class=0.2, train_per_class=0.5)
    seen = []  # 4 images on 3 devices: shares differ in size
    for rank in range(3):
        data.trainer = trainer(3, rank)
        seen += [image for batch in data.test_dataloader() for image in batch.x.numpy()]
    assert sorted(image.tobytes() for image in seen) == sorted(row.tobytes() for row in data.pixels[data.parts["test"]])


def test_broken_files_are_left_out_and_named(folder, caplog):
    whole = (folder / "a" / "0.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "text.jpg").write_text("not an image")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        with caplog.at_level("INFO"):
            data = image_folder(folder)
        for name in ("a/cut.png", "a/empty.jpg", "b/text.jpg"):
            assert f"{folder}/{name}: left out, not readable" in caplog.text
        assert sum(len(rows) for rows in data.parts.values()) == 24


def test_identical_files_never_land_in_two_parts(folder, caplog):
    copy = folder / "a" / "copy of 0.png"
    copy.write_bytes((folder / "a" / "0.png").read_bytes())
    with caplog.at_level("INFO"):
        data = image_folder(folder)
    used = np.concatenate(list(data.parts.values()))
    assert len({data.pixels[row].tobytes() for row in used}) == len(used) == 24
    assert f"{copy}: left out, byte for byte another image" in caplog.text


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"image_size": 0}, "data.image_size=0"),
        ({"image_size": "big"}, "data.image_size=big"),
        ({"image_size": True}, "data.image_size=True"),
        ({"augment": "no"}, "data.augment=no"),
        ({"order_seed": -1}, "data.order_seed=-1"),
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"views": -1, "augment": True}, "data.views=-1"),
        ({"views": 2}, "data.views=2: .*data.augment=true"),
        ({"batch_size": 13}, "data.batch_size=13.*at most the 12 training images"),
        ({"interpolation": "cubic"}, "data.interpolation=cubic.*bilinear, nearest"),
        ({"cache_dir": "/proc/nowhere"}, "data.cache_dir"),
    ],
)
def test_mistakes_are_named(folder, settings, message):
    with pytest.raises(UserError, match=message):
        image_folder(folder, **settings).train_dataloader()


def test_the_tutorials_split_of_the_real_photographs(photographs, tmp_path):
    data = ImageFolder(photographs, image_size=8, cache_dir=tmp_path)
    data.setup()
    assert {part: np.bincount(data.labels[rows]).tolist() for part, rows in data.parts.items()} == {
        "train": [1500, 1500],
        "val": [500, 500],
        "test": [500, 500],
    }


class Encoder:
    """Stands for a frozen part: the mean colour of each image, as the model would get it. Counts the images."""

    def __init__(self, data):
        self.data, self.images = data, 0

    def __call__(self, batch):
        assert batch.x.dtype == torch.uint8 and not batch.encoded
        self.images += len(batch.x)
        return self.data.on_after_batch_transfer(batch).x.mean(dim=(2, 3))


def encoded(folder, key="a", **settings):
    data = image_folder(folder, **settings)
    encoder = Encoder(data)
    data.encode_once(encoder, key and {"frozen": key})
    return data, encoder


def whole(data, part, epoch=0):
    """(N, …) of one epoch in the part's own order."""
    loader = (
        data.train_dataloader()
        if part == "train"
        else data.val_dataloader()
        if part == "val"
        else data.test_dataloader()
    )
    loader.sampler.set_epoch(epoch)
    positions = list(loader.sampler)
    x = torch.cat([data.on_after_batch_transfer(batch).x for batch in loader])
    return torch.empty_like(x).index_copy(0, torch.tensor(positions), x)


def test_images_are_encoded_once_and_then_handed_out_encoded(folder):
    data, encoder = encoded(folder)
    assert encoder.images == 24  # each image of the three parts
    for part in ("train", "val", "test"):
        plain = torch.from_numpy(data.pixels[data.parts[part]]).float() / 255
        torch.testing.assert_close(whole(data, part, epoch=2), plain.mean(dim=(1, 2)))
    again, encoder = encoded(folder, order_seed=3)
    assert encoder.images == 0 and torch.equal(whole(again, "val"), whole(data, "val"))
    for settings in ({"key": "b"}, {"image_size": 8}, {"interpolation": "nearest"}, {"seed": 1}):
        assert encoded(folder, **settings)[1].images == 24
    assert encoded(folder, test_per_class=2)[1].images == 4  # the other parts are what they were


def test_fresh_augmentation_is_not_encoded_but_validation_and_test_are(folder):
    data, encoder = encoded(folder, augment=True)
    assert encoder.images == 12 and set(data.encoded) == {"val", "test"}
    assert next(iter(data.train_dataloader())).x.dtype == torch.uint8
    assert whole(data, "val").shape == (6, 3)


def test_views_are_encoded_once_for_all_epochs_and_seeds(folder):
    data, encoder = encoded(folder, augment=True, views=3)
    assert encoder.images == 3 * 12 + 12
    rows = data.parts["train"]
    plain = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2) / 255
    for seed in (0, 7):
        other, encoder = encoded(folder, augment=True, views=3, order_seed=seed)
        assert encoder.images == 0
        for epoch in range(3):
            expected = torch.stack(
                [views_of(data, plain, view)[image] for image, view in enumerate(other.choices(epoch))]
            )
            torch.testing.assert_close(whole(other, "train", epoch), expected)
        met = np.array([other.choices(epoch) for epoch in range(40)])
        assert (
            all(set(views) == {0, 1, 2} for views in met.T) and len(np.unique(met, axis=0)) == 40
        )  # every view, and not in step
    assert not np.array_equal(data.choices(0), other.choices(0))
    assert encoded(folder, augment=True, views=4)[1].images == 12  # one more view
    assert encoded(folder, augment=True, views=3, augmentation={"rotation": 10})[1].images == 3 * 12


def views_of(data, plain, view):
    """What `augment` makes of the training images with the view's draws, a function of (data.seed, image, view)."""
    draws = draw(len(data.pixels), data.seed, view, **data.augmentation)[data.parts["train"]]
    return augment(plain, torch.from_numpy(draws)).mean(dim=(2, 3))


def test_without_a_key_images_are_handed_out_again(folder):
    data, encoder = encoded(folder)
    data.encode_once(encoder, None)
    assert not data.encoded and next(iter(data.val_dataloader())).x.shape == (5, 16, 16, 3)


@pytest.mark.parametrize("missing, expected", [(0, "cuda:0"), (1, None)])
def test_images_lie_on_the_gpu_where_they_take_at_most_half_of_what_is_free(folder, monkeypatch, missing, expected):
    data = image_folder(folder)
    data.trainer = trainer(1, 0, "cuda:0")
    images = sum(map(len, data.parts.values()))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images * 16 * 16 * 3 - missing, 10**9))
    moved = []
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, **_: moved.append(device) or tensor
    )  # there is none here
    part = data._part("train")
    home = expected and torch.device(expected)
    assert part.device == home and set(moved) == {home} and len(part.versions[0]) == (12 if home else 24)
    data.trainer = trainer(1, 0)
    assert data._part("val").device is None
