from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.batch import SplitDataset
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart
from transfer_learning.data.folds import group_codes
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.dogs_vs_cats import DogsVsCats
from transfer_learning.data.sources.folder import Folder
from transfer_learning.data.splits import PerClass
from transfer_learning.utilities.errors import ArgumentError, UserError

CPU = torch.device("cpu")


def trainer(world_size, rank, device="cpu"):
    """The attributes of a Trainer that the data module reads."""
    return SimpleNamespace(
        world_size=world_size, global_rank=rank, strategy=SimpleNamespace(root_device=torch.device(device))
    )


def epoch_of(data, epoch=0):
    """(N, 3, H, W) images and (N,) targets of one epoch, as a network gets them."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = [data.on_after_batch_transfer(batch) for batch in loader]
    return torch.cat([batch.inputs for batch in batches]), torch.cat([batch.targets for batch in batches])


def mean_colours(images):
    return images.mean(dim=(2, 3))


def test_pixels_are_the_files_stretched_and_in_rgb(folder_data):
    data = folder_data()
    for name, label, row in zip(data.images.names, data.labels, data.pixels):
        with Image.open(name) as image:
            expected = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        assert np.array_equal(row, expected) and name.split("/")[-2] == "ab"[label]
    assert data.class_names == data.images.class_names == ("a", "b")


def test_another_preprocessing_is_another_cached_array(folder_data, tmp_path):
    made = [folder_data(**settings).pixels for settings in ({}, {"interpolation": "nearest"}, {"resize": "crop"})]
    assert not any(np.array_equal(made[0], other) for other in made[1:])
    assert len(list((tmp_path / "cache").glob("pixels-*.rows"))) == 3


def test_a_changed_file_is_decoded_again(folder, folder_data, write_image):
    before = np.array(folder_data().pixels)
    write_image(folder / "a" / "0.png", seed=99, size=(20, 30))
    assert (folder_data().pixels != before).any(axis=(1, 2, 3)).sum() == 1


def test_unchanged_files_are_not_decoded_again(folder_data, monkeypatch):
    before = np.array(folder_data().pixels)
    monkeypatch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was opened"))
    assert np.array_equal(folder_data(seed=1).pixels, before)


def test_images_stay_bytes_until_the_device_and_become_channels_last_floats(folder_data):
    data = folder_data(augment=True)
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == (5, 16, 16, 3) and batch.inputs.dtype == torch.uint8
    for loader in (data.train_dataloader(), data.val_dataloader()):
        images = data.on_after_batch_transfer(next(iter(loader))).inputs
        assert images.shape == (5, 3, 16, 16) and images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_a_float_is_its_byte_over_255(folder_data):
    data = folder_data()
    batch = next(iter(data.val_dataloader()))
    expected = batch.inputs.numpy().transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_allclose(data.on_after_batch_transfer(batch).inputs.numpy(), expected, rtol=1e-6)


def test_an_epoch_has_each_training_image_once_in_an_order_of_its_own(folder_data):
    data = folder_data()
    first, again, second = epoch_of(data, 0)[0], epoch_of(folder_data(), 0)[0], epoch_of(data, 1)[0]
    assert torch.equal(first, again) and not torch.equal(first, second)

    def sort(images):
        return sorted(images.flatten(1).sum(1).tolist())

    expected = data.pixels[data.splits["train"]].astype(np.float32) / 255
    np.testing.assert_allclose(sort(first), sorted(expected.sum(axis=(1, 2, 3))), rtol=1e-4)
    np.testing.assert_allclose(sort(first), sort(second), rtol=1e-5)


def test_the_order_seed_changes_the_order_and_not_the_split(folder_data):
    one, other = folder_data(), folder_data(order_seed=1)
    assert all(np.array_equal(one.splits[split], other.splits[split]) for split in one.splits)
    assert not torch.equal(epoch_of(one)[0], epoch_of(other)[0])


@pytest.mark.parametrize("views", [0, 2])
def test_augmentation_depends_on_neither_batch_size_nor_device_count(folder_data, views):
    """Each image of an epoch, found by its position, is what Affine makes of it with its parameters of the epoch."""
    data = folder_data(augment=True, views=views)
    rows = data.splits["train"]
    plain = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2) / 255
    for epoch in (0, 3):
        (parameters,) = data.augmentation_parameters(epoch)
        expected, _ = Affine().apply(plain, torch.zeros(12), torch.from_numpy(parameters))
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        order = list(loader.sampler)
        torch.testing.assert_close(epoch_of(data, epoch)[0], expected[order])
        other = folder_data(augment=True, views=views, batch_size=7)
        torch.testing.assert_close(epoch_of(other, epoch)[0], expected[order])
        for rank in range(2):
            half = folder_data(augment=True, views=views, batch_size=6)
            half.trainer = trainer(2, rank)
            torch.testing.assert_close(epoch_of(half, epoch)[0], expected[order[rank::2]])


def test_each_epoch_has_its_own_augmentation_parameters(folder_data):
    data = folder_data(augment=True)
    (first,), (again,), (second,) = (data.augmentation_parameters(epoch) for epoch in (0, 0, 1))
    assert first.shape == (12, 7) and first.dtype == np.float32
    assert np.array_equal(first, again) and not np.isin(first[:, 0], second[:, 0]).any()
    (other,) = folder_data(augment=True, order_seed=1).augmentation_parameters(0)
    assert not np.isin(first[:, 0], other[:, 0]).any()


def test_the_parameters_of_a_view_are_a_function_of_view_seed_number_and_image(folder_data):
    data = folder_data(augment=True, views=2)
    (first,), (second,) = data.view(0), data.view(1)
    assert first.shape == (24, 7) and not np.isin(first[:, 0], second[:, 0]).any()
    assert np.array_equal(folder_data(augment=True, views=9, order_seed=5, seed=3).view(0)[0], first)
    assert not np.isin(folder_data(augment=True, views=2, view_seed=1).view(0)[0][:, 0], first[:, 0]).any()


def test_evaluation_on_several_devices_counts_each_image_once(folder_data):
    data = folder_data((0.5, 0.25, 0.2))
    seen = []  # 4 images on 3 devices: shares differ in size
    for rank in range(3):
        data.trainer = trainer(3, rank)
        seen += [image for batch in data.test_dataloader() for image in batch.inputs.numpy()]
    assert len(seen) == 4
    assert sorted(image.tobytes() for image in seen) == sorted(
        row.tobytes() for row in data.pixels[data.splits["test"]]
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("settings", [{}, {"augment": True}, {"augment": True, "views": 2}, {"batch_size": 12}])
@pytest.mark.parametrize("features", [False, True])
def test_a_batch_carries_the_indices_of_its_images(folder_data, split, settings, features):
    data = folder_data(**settings)
    if features:
        data.store_features(FrozenPart(mean_colours, torch.device("cpu"), {"weights": "a"}))
    loader = getattr(data, f"{split}_dataloader")()
    loader.sampler.set_epoch(1)
    batches = list(loader)
    indices = torch.cat([batch.indices for batch in batches])
    order = list(loader.sampler)
    assert indices.dtype == torch.int64 and indices.tolist() == data.splits[split][order].tolist()
    assert (order != sorted(order)) == (split == "train")
    for batch in batches:
        assert np.array_equal(batch.targets, data.labels[batch.indices.numpy()])
        assert torch.equal(data.on_after_batch_transfer(batch).indices, batch.indices)
        pixels = torch.from_numpy(data.pixels[batch.indices.numpy()])
        if not batch.is_features:
            assert torch.equal(batch.inputs, pixels)
        elif not (split == "train" and data.augment):
            torch.testing.assert_close(batch.inputs, pixels.float().mean(dim=(1, 2)) / 255)
    assert batches[0].is_features == (features and not (split == "train" and data.augment and not data.views))


def test_broken_files_are_left_out_and_named(folder, folder_data, caplog):
    complete = (folder / "a" / "0.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(complete[: len(complete) // 2])
    (folder / "a" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "text.jpg").write_text("not an image")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        with caplog.at_level("INFO"):
            data = folder_data()
        (line,) = [each for each in caplog.messages if each.startswith("left out, not readable as an image: 3 (")]
        for name in ("a/cut.png", "a/empty.jpg", "b/text.jpg"):
            assert f"{folder}/{name} (" in line
        assert sum(len(rows) for rows in data.splits.values()) == 24


def deep_files(folder, values_of, suffix="png"):
    """Two classes of 12 images with more than 8 bits per channel: values_of(seed)."""
    for seed in range(24):
        path = folder / "ab"[seed % 2] / f"{seed}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values_of(np.random.default_rng(seed))).save(path)
    return folder


DEEP = {  # kind: how to make values, the line
    "12 bits in 16": (
        lambda rng: rng.integers(0, 4096, (40, 40)).astype(np.uint16),
        "24 images such as .*/a/0.tif: values from 0 to 4,095, where the full range is 0 to 65,535",
    ),
    "CT numbers": (
        lambda rng: rng.integers(-1000, 3001, (40, 40)).astype(np.int32),
        "values from -1,000 to 3,000, where the full range is -2.14748e[+]09 to 2.14748e[+]09",
    ),
    "floats to 255": (
        lambda rng: (rng.random((40, 40)) * 255).astype(np.float32),
        "values from 0.0.* to 25.*, where the full range is 0 to 1",
    ),
    "dark floats": (
        lambda rng: (rng.random((40, 40)) * 0.2).astype(np.float32),
        "values from .*e-07 to 0.199.*, where the full range is 0 to 1",
    ),
    "black": (lambda rng: rng.integers(0, 2, (9, 9)).astype(np.uint16), "values from 0 to 1, where"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_images_that_use_little_of_their_range_stop_until_depth_is_chosen(tmp_path, data_module, kind):
    values_of, line = DEEP[kind]
    source = Folder(deep_files(tmp_path / "deep", values_of, "tif"))

    def pixels(depth):
        data = data_module(source, (6, 3, 3), image_size=40, batch_size=5, depth=depth)
        return np.array(data.pixels[np.concatenate(list(data.splits.values()))])

    for _ in range(2):  # the second time from the cache
        ways = r"Choose depth=image, .*, or depth=dtype, the full range\.$"
        with pytest.raises(ArgumentError, match=f"^depth=None: .*{line}.*{ways}") as error:
            pixels(None)
        assert "\n" not in str(error.value)
    found = pixels("image")
    assert found.min() == 0 and found.max() == 255 and found.std() > 50
    if kind == "floats to 255":
        with pytest.raises(UserError):  # all of them are left out
            pixels("dtype")
    else:
        assert np.ptp(pixels("dtype")) < 64


def test_deep_images_that_use_their_range_are_read_as_before(tmp_path, data_module, caplog):
    source = Folder(deep_files(tmp_path / "deep", lambda rng: rng.integers(0, 65536, (16, 16)).astype(np.uint16)))
    data = data_module(source, (6, 3, 3), image_size=16, interpolation="nearest", batch_size=5)
    expected = np.random.default_rng(0).integers(0, 65536, (16, 16)) // 256
    (first,) = [n for n, name in enumerate(data.images.names) if name.endswith("a/0.png")]
    assert np.array_equal(data.pixels[first][..., 1], expected)


def test_dark_images_among_bright_ones_are_named_in_one_line(tmp_path, data_module, caplog, write_image):
    source = Folder(deep_files(tmp_path / "deep", lambda rng: rng.integers(0, 65536, (16, 16)).astype(np.uint16)))
    for number in (3, 5, 7):
        dark = np.random.default_rng(number).integers(0, 3000, (16, 16)).astype(np.uint16)
        Image.fromarray(dark).save(tmp_path / "deep" / "b" / f"{number}.png")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            data_module(source, (6, 3, 3), image_size=16, batch_size=5)
        (line,) = [each for each in caplog.text.splitlines() if "where the full range" in each]
        assert "3 images such as " in line and "b/3.png: values from" in line and "depth=image" in line


def test_files_with_several_frames_are_counted_in_one_line(folder, folder_data, caplog):
    frames = [Image.new("RGB", (20, 20), (n, 0, 0)) for n in (50, 100, 150)]
    for n, name in enumerate(("1 moving.gif", "2 scan.tiff", "3 moving.webp")):
        frames[n].save(folder / "a" / name, save_all=True, append_images=[frames[0], frames[1]])
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            folder_data()
        (line,) = [each for each in caplog.text.splitlines() if "several frames" in each]
        assert line.endswith(f"of which the first is used: 3 files ({folder}/a/1 moving.gif and 2 more)")


def test_identical_files_are_never_in_two_splits(folder, folder_data, caplog):
    copy = folder / "a" / "copy of 0.png"
    copy.write_bytes((folder / "a" / "0.png").read_bytes())
    with caplog.at_level("INFO"):
        data = folder_data()
    used = np.concatenate(list(data.splits.values()))
    assert len({data.pixels[row].tobytes() for row in used}) == len(used) == 24
    assert f"left out, the same bytes as another image: 1 ({copy} ({folder}/a/0.png))" in caplog.text


def test_any_function_of_the_images_can_be_the_split(folder, tmp_path):
    """It gets the images that can be used, and its indices into them become indices into all images."""
    (folder / "a" / "0 broken.png").write_text("not an image")
    (folder / "b" / "0 copy.png").write_bytes((folder / "b" / "1.png").read_bytes())
    given = []

    def split(images):
        given.append(images)
        return {"train": np.arange(3, 24), "val": np.array([2, 0]), "test": np.array([1])}

    data = ImageDataModule(Folder(folder), split, Preprocessing(16), cache_dir=tmp_path / "cache")
    data.setup()
    listed, images = given  # before and after the images were decoded
    assert sum("broken" in name for name in listed.names) == 1 and len(listed.names) == 25
    assert len(images.names) == 24 and not any("broken" in name for name in images.names)
    assert [data.images.names[index] for index in data.splits["val"]] == [images.names[2], images.names[0]]
    used = np.concatenate(list(data.splits.values()))
    assert sorted(data.images.digests[index] for index in used) == sorted(images.digests)


@pytest.mark.parametrize(
    "splits, message",
    [
        ({"train": [2, 3, 4], "val": [1, 2], "test": [0, 4]}, r"leaky returns 2 images several times: .*/a/.*/a/"),
        ({"train": [2, 3, 3], "val": [1], "test": [0]}, "leaky returns 1 images several times"),
        ({"train": [2, 3, 4], "val": [1]}, "leaky returns no test images; expected train, val, test"),
    ],
)
def test_a_split_that_is_not_one_is_refused(folder, tmp_path, splits, message):
    def leaky(images):
        return {name: np.array(rows) for name, rows in splits.items()}

    data = ImageDataModule(Folder(folder), leaky, Preprocessing(16), cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match=f"^the split {message}"):
        data.list_images()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"image_size": 0}, "image_size=0: expected greater than or equal to 1"),
        ({"image_size": "big"}, "image_size='big': expected a valid integer"),
        ({"image_size": True}, "image_size=True: expected a valid integer"),
        ({"augment": "no"}, "augment='no': expected a valid boolean"),
        ({"order_seed": -1}, "order_seed=-1: expected"),
        ({"view_seed": -1}, "view_seed=-1: expected"),
        ({"batch_size": 0}, "batch_size=0: expected"),
        ({"views": -1, "augment": True}, "views=-1: expected"),
        ({"views": 2}, "views=2: .*augment=true"),
        ({"batch_size": 13}, "batch_size=13: .*at most the 12 training images"),
        ({"interpolation": "cubic"}, "interpolation='cubic': expected 'bilinear', 'bicubic' or 'nearest'"),
        ({"depth": "float"}, "depth='float': expected 'dtype' or 'image'"),
        ({"resize": "squeeze"}, "resize='squeeze': expected 'stretch', 'crop' or 'pad'"),
        ({"cache_dir": "/proc/nowhere"}, "cache_dir='/proc/nowhere': .*choose another folder"),
        ({"augmentation": "flip"}, "augmentation='flip': expected"),
    ],
)
def test_wrong_arguments_are_named(folder_data, settings, message):
    with pytest.raises(ArgumentError, match=message) as error:
        folder_data(**settings).train_dataloader()
    assert error.value.argument in settings and isinstance(error.value, UserError)
    assert error.value.value == settings[error.value.argument]


def test_a_batch_size_that_the_devices_cannot_share_is_refused(folder_data):
    data = folder_data(batch_size=5)
    data.trainer = trainer(2, 0)
    with pytest.raises(ArgumentError, match="batch_size=5: expected a multiple of the 2 devices"):
        data.train_dataloader()


def test_the_tutorials_split_of_the_real_photographs(photographs, tmp_path):
    data = ImageDataModule(DogsVsCats(photographs), PerClass(1500, 500, 500), Preprocessing(8), cache_dir=tmp_path)
    data.setup()
    assert {split: np.bincount(data.labels[rows]).tolist() for split, rows in data.splits.items()} == {
        "train": [1500, 1500],
        "val": [500, 500],
        "test": [500, 500],
    }


@pytest.mark.parametrize("missing, expected", [(0, "cuda:0"), (1, None)])
def test_all_splits_are_kept_on_the_gpu_if_they_fit_into_half_of_its_free_memory(
    folder_data, monkeypatch, missing, expected
):
    data = folder_data()
    data.trainer = trainer(1, 0, "cuda:0")
    images = sum(map(len, data.splits.values()))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * images * 16 * 16 * 3 - missing, 10**9))
    moved = []
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, **_: moved.append(device) or tensor
    )  # this machine may have no GPU
    dataset = data.train_dataloader().dataset
    device = expected and torch.device(expected)
    assert dataset.device == device and set(moved) == {device} and len(dataset.array) == (12 if device else 24)
    data.trainer = trainer(1, 0)
    assert data.val_dataloader().dataset.device is None


@pytest.mark.parametrize("device, pinned", [("cpu", False), ("cuda", True)])
def test_batches_are_pinned_for_the_gpu_of_the_run_only(folder_data, monkeypatch, device, pinned):
    data = folder_data()
    data.trainer = trainer(1, 0, device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))  # so that the splits are not kept there
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert [loader.pin_memory for loader in loaders] == [pinned] * 3


def test_numbers_are_int64_where_numpy_has_another_default(folder_data, monkeypatch):
    """On Windows, NumPy 1's integers are int32: the loss refuses such labels, and products overflow."""
    whole = {name: getattr(np, name) for name in ("arange", "array", "full")}

    def with_default(make, *arguments, **settings):
        made = make(*arguments, **settings)
        return made.astype(np.int32) if made.dtype == np.int64 and "dtype" not in settings else made

    with monkeypatch.context() as patch:
        for name, make in whole.items():
            patch.setattr(np, name, partial(with_default, make))
        data = folder_data()
        batch = next(iter(data.train_dataloader()))
        kept = SplitDataset(data.pixels, data.splits["val"][None], *[data.splits["val"]] * 2, device=CPU)
    assert {array.dtype for array in (data.labels, data.readable, *data.splits.values())} == {np.dtype(np.int64)}
    assert {batch.targets.dtype, batch.indices.dtype, kept.rows.dtype} == {torch.int64}
    assert group_codes(None, 3).dtype == np.int64
