import numpy as np
import pytest

from transfer_learning.engine.label_errors import out_of_fold, suspect_labels


def clusters(classes, per_class, features=6, spread=0.3, seed=0):
    """Features of images, each near the centre of its class, and the classes."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    centres = generator.normal(size=(classes, features))
    return (centres[labels] + spread * generator.normal(size=(len(labels), features))).astype(np.float32), labels


def suspects(features, labels, classes, groups=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return suspect_labels(out_of_fold(features, labels, groups, classes), labels)


@pytest.mark.parametrize("classes, features", [(2, 6), (5, 6), (3, 700)])
def test_planted_wrong_labels_are_the_most_suspect(classes, features):
    rows, labels = clusters(classes, 40, features)
    wrong = np.random.default_rng(1).choice(len(labels), 8, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % classes
    found = suspects(rows, given, classes)
    assert set(found.indices[:8]) == set(wrong)
    assert dict(zip(found.indices, found.classes)).items() >= dict(zip(wrong, labels[wrong])).items()
    margins = found.given - found.likely
    assert (np.diff(margins) >= 0).all() and (margins[:8] < -0.5).all()


def test_right_labels_of_separate_classes_are_not_suspect():
    assert not len(suspects(*clusters(4, 20, spread=0.05), 4).indices)


def test_confident_learning_equals_a_plain_loop():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.dirichlet([0.5] * 4, 200), generator.integers(0, 4, 200)
    probabilities[7] = np.nan
    judged = [n for n in range(200) if n != 7]
    thresholds = [np.mean([probabilities[n, c] for n in judged if labels[n] == c]) for c in range(4)]
    expected = {}
    for n in judged:
        reached = [c for c in range(4) if probabilities[n, c] >= thresholds[c]]
        best = max(reached, key=lambda c: probabilities[n, c]) if reached else labels[n]
        if best != labels[n]:
            expected[n] = probabilities[n, labels[n]] - probabilities[n, best]
    found = suspect_labels(probabilities, labels)
    assert found.indices.tolist() == sorted(expected, key=expected.get) and len(expected) > 20


def test_duplicates_with_different_labels_do_not_hide_each_other():
    """Ten copies of each of six images with a wrong label: only if copies are predicted together are they suspect."""
    rows, labels = clusters(2, 60, features=80, spread=1.5)
    copies = np.repeat(np.arange(6), 10)
    rows, given = np.concatenate([rows, rows[copies]]), np.concatenate([labels, 1 - labels[copies]])
    group = np.concatenate([np.arange(120), copies])
    together, apart = suspects(rows, given, 2, group), suspects(rows, given, 2)
    assert (together.indices >= 120).sum() > (apart.indices >= 120).sum()
    probabilities = out_of_fold(rows, given, group, 2)
    assert probabilities[120:, 1].mean() < out_of_fold(rows, given, np.arange(len(given)), 2)[120:, 1].mean()


@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (1, 30, 30), (2, 30), (3, 1, 1), (1,), (30, 0, 30)])
def test_classes_of_few_images(counts):
    rows, _ = clusters(1, sum(counts))
    labels = np.repeat(np.arange(len(counts)), counts)
    probabilities = out_of_fold(rows, labels, np.arange(len(labels)), len(counts))
    for code, count in enumerate(counts):
        if count == 1:  # no other image tells what the class looks like
            assert np.isnan(probabilities[labels == code]).all()
            assert code not in labels[suspect_labels(probabilities, labels).indices]
    if min(counts) > 2:
        np.testing.assert_allclose(np.nansum(probabilities, axis=1), 1)


def test_out_of_fold_predictions_repeat():
    rows, labels = clusters(3, 20)
    np.testing.assert_array_equal(*(out_of_fold(rows, labels, np.arange(60), 3) for _ in range(2)))


def test_features_that_are_constant_change_nothing():
    rows, labels = clusters(2, 30)
    more = np.concatenate([rows, np.full((60, 2), 3, np.float32)], axis=1)
    found = [out_of_fold(each, labels, np.arange(60), 2) for each in (rows, more)]
    assert np.isfinite(found[1]).all() and ((found[0] > 0.5) == (found[1] > 0.5)).mean() > 0.95
