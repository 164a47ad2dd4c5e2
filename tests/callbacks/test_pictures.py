import numpy as np
import torch

from transfer_learning.callbacks.pictures import augmented, features
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.pretrained import Pretrained


def test_an_image_as_it_is_and_five_different_versions_with_their_label(small_data):
    data = small_data()
    axes = augmented(data).axes
    pictures = [np.asarray(ax.images[0].get_array()) for ax in axes]
    row = data.parts["train"][0]
    np.testing.assert_allclose(pictures[0], data.pixels[row] / 255, atol=1e-6)
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert all(data.class_names[data.labels[row]] in ax.get_title() for ax in axes)


def test_feature_maps_are_the_frozen_parts_output(small_data):
    data = small_data(image_size=64)
    torch.manual_seed(0)
    model = Classifier(Pretrained(2, 64, weights=None), data.class_names, 64)
    image, *maps = features(data, model).axes
    row = data.parts["train"][0]
    assert np.array_equal(image.images[0].get_array(), data.pixels[row])
    with torch.no_grad():
        expected = model.network.frozen[:6](
            torch.from_numpy(np.array(data.pixels[row : row + 1])).permute(0, 3, 1, 2) / 255
        )[0]  # before the pooling
    strongest = expected.mean(dim=(1, 2)).topk(8).indices.tolist()
    assert [int(ax.get_title().removeprefix("channel ")) for ax in maps] == strongest
    for ax in maps:
        channel = int(ax.get_title().removeprefix("channel "))
        np.testing.assert_allclose(ax.images[0].get_array(), expected[channel], rtol=1e-5)


def test_no_picture_without_frozen_maps(small_data, small_model):
    data = small_data()
    vit = Pretrained(2, 32, "vit_b_16", weights=None)
    assert features(data, small_model()) is None and features(data, Classifier(vit, data.class_names, 32)) is None
