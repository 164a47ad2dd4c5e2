import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfer_learning.callbacks.pictures import Pictures, augmented_images, feature_maps
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.models.pretrained import Pretrained


def test_image_and_five_augmented_versions_with_their_label(small_data):
    data = small_data()
    axes = augmented_images(data).axes
    pictures = [np.asarray(ax.images[0].get_array()) for ax in axes]
    index = data.splits["train"][0]
    np.testing.assert_allclose(pictures[0], data.pixels[index] / 255, atol=1e-6)
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert all(data.class_names[data.labels[index]] in ax.get_title() for ax in axes)


def test_feature_maps_are_the_output_of_the_frozen_part(small_data):
    data = small_data(image_size=64)
    torch.manual_seed(0)
    network = Pretrained(2, 64, "vgg16", weights=None)
    image, *maps = feature_maps(data, network).axes
    index = data.splits["train"][0]
    assert np.array_equal(image.images[0].get_array(), data.pixels[index])
    pixels = torch.from_numpy(np.array(data.pixels[index : index + 1])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = network.frozen[:6](pixels)[0]  # before pooling
    strongest = expected.mean(dim=(1, 2)).topk(8).indices.tolist()
    assert [int(ax.get_title().removeprefix("channel ")) for ax in maps] == strongest
    for ax in maps:
        channel = int(ax.get_title().removeprefix("channel "))
        np.testing.assert_allclose(ax.images[0].get_array(), expected[channel], rtol=1e-5)


def test_places_of_a_grid_without_an_image_are_empty(small_data):
    data = small_data(per_class=(1, 5, 5), batch_size=1)
    axes = augmented_images(data).axes
    assert len(axes) == 3 and not any(ax.axison for ax in axes)  # two training images
    data.splits["train"] = data.splits["train"][:1]
    assert len(augmented_images(data).axes) == 2


def test_maps_with_channels_last_are_not_shown(small_data):
    """Of Swin at 32 pixels, whose last map (1, C, h, w) has one pixel, and whose others are (1, h, w, C)."""
    assert feature_maps(small_data(), Pretrained(2, 32, "swin_t", weights=None)) is None


def test_no_figure_without_frozen_maps(small_data, small_model):
    data = small_data()
    assert feature_maps(data, small_model().network) is None
    assert feature_maps(data, Pretrained(2, 32, "vit_b_16", weights=None)) is None


def test_without_augmentation_steps_the_versions_are_the_image(small_data):
    """An empty list is not replaced by the default step."""
    data = small_data(augmentation=[])
    assert data.augmentation.steps == [] and data.augmentation_parameters(epoch=0) == ()
    first, *versions = [np.asarray(ax.images[0].get_array()) for ax in augmented_images(data).axes]
    assert all(np.allclose(first, version, atol=1e-6) for version in versions)


def test_versions_have_the_parameters_of_the_first_training_images(small_data):
    data = small_data(augmentation=Affine())
    image = torch.from_numpy(data.pixels[data.splits["train"][:1]]).permute(0, 3, 1, 2) / 255
    (parameters,) = data.augmentation_parameters(epoch=0)
    expected, _ = Affine().apply(image.repeat(5, 1, 1, 1), torch.zeros(5), torch.from_numpy(parameters[:5]))
    versions = [np.asarray(ax.images[0].get_array()) for ax in augmented_images(data).axes[1:]]
    np.testing.assert_allclose(versions, expected.permute(0, 2, 3, 1), atol=1e-6)


class MixWithPrevious:
    """Mixes each image with the one before it in the batch; targets stay as they are."""

    version = 1

    def sample(self, count, generator):
        return generator.random((count, 1)).astype(np.float32)

    def apply(self, images, targets, parameters):
        return images.roll(1, 0).lerp(images, parameters[:, :, None, None]), targets


def test_versions_that_are_mixed_with_other_training_images(small_data):
    data = small_data(augmentation=MixWithPrevious())
    first, *others = data.pixels[data.splits["train"][:6]] / 255
    (weights,) = data.augmentation_parameters(epoch=0)
    expected = [weight * first + (1 - weight) * other for weight, other in zip(weights[:5], others)]
    versions = [np.asarray(ax.images[0].get_array()) for ax in augmented_images(data).axes[1:]]
    np.testing.assert_allclose(versions, expected, atol=1e-6)


def test_versions_of_another_size_and_of_the_only_training_image(small_data):
    data = small_data(per_class=(1, 5, 5), augmentation=[RandomResizedCrop(size=20), MixWithPrevious()], batch_size=1)
    data.splits["train"] = data.splits["train"][:1]
    first, version = [np.asarray(ax.images[0].get_array()) for ax in augmented_images(data).axes[:2]]
    assert first.shape == (32, 32, 3) and version.shape == (20, 20, 3)


@pytest.mark.parametrize("augment", [False, True])
def test_augmented_images_are_shown_where_images_are_augmented(
    tmp_path, small_data, small_model, quiet_trainer, augment
):
    logger = TensorBoardLogger(tmp_path, "", "")
    trainer = quiet_trainer(max_epochs=1, logger=logger, callbacks=[Pictures()])
    trainer.fit(small_model(), datamodule=small_data(augment=augment))
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert ("augmentation" in events.Tags()["images"]) is augment
