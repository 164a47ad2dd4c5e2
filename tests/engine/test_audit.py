from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart
from transfer_learning.data.images import Images
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.data.sources.folder import Folder
from transfer_learning.data.splits import Given, GivenOrPerClass, PerClass
from transfer_learning.engine.audit import WherePossible, _pooled, audit, pooled_features
from transfer_learning.utilities.errors import ArgumentError, UserError

SIZE = 32


def frozen(name="a"):
    """A random convolution as the frozen part."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 5, stride=2), torch.nn.ReLU())

    def forward(images):
        forward.images += len(images)
        with torch.no_grad():
            return layers(images).to(torch.bfloat16)

    forward.images = 0
    return FrozenPart(forward, torch.device("cpu"), {"weights": name})


@pytest.fixture
def folder(tmp_path):
    """Twenty cats and twenty dogs."""
    for number in range(40):
        path = tmp_path / "photos" / ("dog" if number % 2 else "cat") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cartoon(number % 2, f"audit {number}").resize((64, 64)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def audited(folder, tmp_path):
    """audited(splits, **settings): the audit of the folder's images; `splits` names the split of a file, or none."""

    def make(splits=None, **settings):
        def split(images):
            number = {path: n for n, path in enumerate(sorted(images.names))}
            names = [path.rpartition("photos/")[2] for path in images.names]
            found = {"train": [], "val": [], "test": []}
            for index, name in enumerate(names):
                found[splits.get(name, ("train", "val", "test")[number[images.names[index]] % 3])].append(index)
            return {key: np.array(rows, dtype=np.int64) for key, rows in found.items()}

        strategy = split if splits is not None else PerClass(0.6, 0.2, 0.2)
        data = ImageDataModule(Folder(folder), strategy, Preprocessing(SIZE), cache_dir=tmp_path / "cache", **settings)
        return audit(data, frozen())

    return make


def named(found, finding):
    """The names of a finding's images below the folder."""
    files = [found.files[n].rpartition("photos/")[2] for n in (finding.image, finding.other) if n is not None]
    return files if finding.other is not None else files[0]


def test_pairs_across_splits_come_first_and_name_the_image_to_leave_out(folder, audited):
    with Image.open(folder / "cat" / "0.png") as image:
        image.resize((50, 50)).save(folder / "cat" / "scaled.png")
    with Image.open(folder / "cat" / "2.png") as image:
        image.save(folder / "cat" / "compressed.jpg", quality=80)
    with Image.open(folder / "dog" / "1.png") as image:
        ImageOps.mirror(image).save(folder / "dog" / "mirrored.png")
    with Image.open(folder / "dog" / "3.png") as image:
        image.save(folder / "cat" / "other.jpg", quality=90)
    splits = {"cat/0.png": "train", "cat/scaled.png": "train", "cat/2.png": "train", "cat/compressed.jpg": "val"}
    splits |= {"dog/1.png": "test", "dog/mirrored.png": "val", "dog/3.png": "train", "cat/other.jpg": "train"}
    found = audited(splits)
    pairs = found.of("near-duplicate")
    assert {tuple(named(found, pair)): pair.detail for pair in pairs} == {
        ("cat/2.png", "cat/compressed.jpg"): "",
        ("dog/mirrored.png", "dog/1.png"): "mirrored",
        ("cat/scaled.png", "cat/0.png"): "",
        ("dog/3.png", "cat/other.jpg"): "labels differ",
    }
    across = [found.is_across(pair) for pair in pairs]
    assert across == [True, True, False, False]
    for part in (pairs[:2], pairs[2:]):
        assert part[0].score >= part[1].score > 0.8


def test_identical_files_are_found_once_whatever_their_splits_and_labels(folder, audited):
    content = (folder / "cat" / "0.png").read_bytes()
    for copy in ("cat/copy.png", "more/cat/copy.png"):
        (folder / copy).parent.mkdir(exist_ok=True, parents=True)
        (folder / copy).write_bytes(content)
    (folder / "cat" / "dog.png").write_bytes((folder / "dog" / "1.png").read_bytes())
    found = audited()
    identical = found.of("identical")
    assert len(identical) == 3 and not found.of("near-duplicate")
    differing = [named(found, pair) for pair in identical if "labels differ" in pair.detail]
    assert list(map(sorted, differing)) == [["cat/dog.png", "dog/1.png"]]


def test_a_copy_of_an_image_in_a_split_is_compared_as_that_image(folder, audited):
    """The file that comes first is in no split: a table's split would not name it."""
    (folder / "cat" / "-first.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    with Image.open(folder / "cat" / "0.png") as image:
        image.save(folder / "cat" / "compressed.jpg", quality=85)
    splits = {"cat/0.png": "test", "cat/-first.png": "test", "cat/compressed.jpg": "train"}
    found = audited(splits)
    (pair,) = found.of("near-duplicate")
    assert named(found, pair)[0] == "cat/compressed.jpg" and found.is_across(pair)


@pytest.mark.parametrize("keeps", [True, False])
def test_leaks_between_given_splits_are_across_although_training_leaves_them_out(tmp_path, keeps):
    folder, places = tmp_path / "photos", ("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog")
    for number in range(42):
        path = folder / places[number % 6] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cartoon(number % 2, f"leak {number}").resize((64, 64)).save(path)
    copied = {
        "train/dog/5.png": "test/dog/5.png",
        "val/cat/4.png": "test/cat/4.png",
        "train/cat/2.png": "val/cat/2.png",
    }
    for leak, original in copied.items():
        (folder / leak).write_bytes((folder / original).read_bytes())
    (folder / "train/cat/same.png").write_bytes((folder / "train/cat/0.png").read_bytes())
    strategy = GivenOrPerClass() if keeps else PerClass(0.6, 0.2, 0.2)
    data = ImageDataModule(Folder(folder), strategy, Preprocessing(SIZE), cache_dir=tmp_path / "cache")
    found = audit(data, frozen())
    pairs = {tuple(named(found, pair)): found.is_across(pair) for pair in found.of("identical")}
    if keeps:
        assert pairs == dict.fromkeys(copied.items(), True) | {("train/cat/same.png", "train/cat/0.png"): False}
        assert [found.splits[pair.image] for pair in found.of("identical")] == ["train", "train", "val", "train"]
    else:  # these images are split anew, and each copy is in none
        assert len(pairs) == 4 and not any(pairs.values())


def test_unusual_files_are_found(folder, audited):
    Image.new("RGB", (64, 64), (30, 200, 90)).save(folder / "cat" / "flat.png")
    Image.new("L", (64, 64), 255).save(folder / "cat" / "white.png")
    with Image.open(folder / "cat" / "0.png") as image:
        image.point(lambda value: value // 8).save(folder / "cat" / "dark.png")
    with Image.open(folder / "cat" / "2.png") as image:
        image.point(lambda value: 225 + value // 9).save(folder / "dog" / "bright.png")
    with Image.open(folder / "dog" / "1.png") as image:
        image.resize((7, 9)).save(folder / "dog" / "tiny.png")
    with Image.open(folder / "dog" / "3.png") as image:
        image.resize((300, 90)).save(folder / "dog" / "wide.png")
        image.resize((20, 61)).save(folder / "dog" / "tall.gif")
    (folder / "dog" / "broken.png").write_bytes(b"no image")
    found = audited()

    def names(kind):
        return [named(found, finding) for finding in found.of(kind)]

    assert set(names("one colour")) == {"cat/flat.png", "cat/white.png"}
    assert names("dark") == ["cat/dark.png"] and names("bright") == ["dog/bright.png"]
    assert names("small") == ["dog/tiny.png"] and found.of("small")[0][2:4] == (7.0, "7 × 9")
    assert names("stretched") == ["dog/wide.png", "dog/tall.gif"]
    assert not any("broken" in found.files[finding.image] for finding in found.findings)
    assert found.summary["format"] == "PNG 46, GIF 1" and found.summary["width"] == "7 to 300 pixels, median 64"
    assert [finding.kind for finding in found.findings] == sorted(
        (finding.kind for finding in found.findings), key=list(dict.fromkeys(f.kind for f in found.findings)).index
    )


def test_wrong_labels_are_suspect(tmp_path):
    """Brightness tells the class, but for two images."""
    generator = np.random.default_rng(0)
    for number in range(60):
        dark = number % 2
        path = tmp_path / "photos" / ("light" if dark == (number in (10, 31)) else "dark") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 110, (SIZE, SIZE, 3)) + (10 if dark else 140)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    data = ImageDataModule(
        Folder(tmp_path / "photos"), PerClass(0.6, 0.2, 0.2), Preprocessing(SIZE), cache_dir=tmp_path / "cache"
    )
    found = audit(data, frozen())
    first = found.of("label")[:2]
    assert {named(found, finding).partition("/")[2] for finding in first} == {"10.png", "31.png"}
    assert {finding.detail for finding in first} == {"looks like light", "looks like dark"}


def test_features_are_read_if_they_are_stored(folder, tmp_path):
    data = ImageDataModule(Folder(folder), PerClass(8, 4, 4), Preprocessing(SIZE), cache_dir=tmp_path / "cache")
    part = frozen()
    data.store_features(part)
    computed = part.forward.images
    audit(data, part)
    assert part.forward.images == computed + 32  # one batch for the eight images that no split has


@pytest.mark.parametrize("maps", [True, False])
def test_maps_are_pooled(folder, tmp_path, maps, monkeypatch):
    monkeypatch.setattr("transfer_learning.engine.audit.BLOCK", 7)
    data = ImageDataModule(Folder(folder), PerClass(0.6, 0.2, 0.2), Preprocessing(SIZE), cache_dir=tmp_path / "cache")
    data.setup()
    forward = (lambda images: images[:, :, ::2, ::4]) if maps else (lambda images: images.mean(dim=(2, 3)))
    part = FrozenPart(forward, torch.device("cpu"), {"maps": maps})
    pixels = data.pixels[[5, 3, 30]].astype(np.float32) / 255
    expected = pixels[:, ::2, ::4].mean(axis=(1, 2)) if maps else pixels.mean(axis=(1, 2))
    found = pooled_features(data, part, np.array([5, 3, 30]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "shape, places", [((4, 7, 7, 16), (1, 2)), ((4, 16, 7, 7), (2, 3)), ((4, 9, 16), 1), ((4, 16), ())]
)
def test_features_are_means_over_places_in_every_layout(shape, places):
    features = torch.rand(shape)
    expected = features.numpy().mean(axis=places) if places else features.numpy()
    np.testing.assert_allclose(_pooled(features).numpy(), expected, rtol=1e-5)


def test_excluded_images_are_not_audited(folder, audited, tmp_path):
    with Image.open(folder / "cat" / "0.png") as image:
        image.save(folder / "cat" / "compressed.jpg", quality=80)
    found = audited()
    (pair,) = found.of("near-duplicate")
    (tmp_path / "audit.csv").write_text(f"exclude,sha256\nx,{found.digests[pair.image]}\n")
    assert not audited(exclude=tmp_path / "audit.csv").of("near-duplicate")


def labelled(labels):
    digests = [f"{index}" for index in range(len(labels))]
    return Images(digests, np.array(labels, dtype=np.int64), ("cat", "dog"), digests, read=pytest.fail)


def contents(splits):
    return {split: rows.tolist() for split, rows in splits.items()}


def test_images_too_few_to_be_divided_stay_where_they_are(caplog):
    few = labelled([0, 0, 1])
    with caplog.at_level("INFO"):
        assert contents(WherePossible(PerClass())(few)) == {"train": [0, 1, 2], "val": [], "test": []}
    assert "left undivided, in given splits or else as training images: test_per_class=0.2: class 'cat'" in caplog.text
    given = replace(few, splits=["test", "train", "train"])
    for split, places in ((GivenOrPerClass(), [[1, 2], [], [0]]), (PerClass(), [[0, 1, 2], [], []])):
        assert list(contents(WherePossible(split)(given)).values()) == places
        assert WherePossible(split).keeps_splits(given) == isinstance(split, GivenOrPerClass)


def test_a_split_that_is_possible_is_as_without():
    many = labelled([0, 1] * 20)
    assert contents(WherePossible(PerClass())(many)) == contents(PerClass()(many))
    with pytest.raises(UserError, match="no splits are given"):
        WherePossible(Given()).keeps_splits(many)
    with pytest.raises(ArgumentError, match="class 'cat' has 0 images"):
        WherePossible(PerClass())(labelled([]))
