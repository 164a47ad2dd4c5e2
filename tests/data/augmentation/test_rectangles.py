import torch

from transfer_learning.data.augmentation.rectangles import rectangles


def test_pixels_are_inside_if_their_centre_is():
    sides = torch.tensor([[0.25, 0.75, 0.0, 1.0], [-0.5, 0.5, 0.8, 1.5], [0.4, 0.4, 0.2, 0.9], [0.1, 0.4, 0.2, 0.35]])
    inside = rectangles(sides, 4, 5)
    assert inside.shape == (4, 1, 4, 5) and inside.dtype == torch.bool
    expected = torch.zeros(4, 1, 4, 5, dtype=torch.bool)
    for n, (top, bottom, left, right) in enumerate(sides.tolist()):
        for y in range(4):
            for x in range(5):
                expected[n, 0, y, x] = top < (y + 0.5) / 4 < bottom and left < (x + 0.5) / 5 < right
    assert torch.equal(inside, expected)
    assert inside.sum(dim=(1, 2, 3)).tolist() == [10, 2, 0, 2]
