import numpy as np
import pytest
from sklearn import metrics as independent

from transfer_learning.reporting.evaluation import BINS, evaluate


def examples(classes, count=300, seed=0, missing=()):
    """Probabilities that are right more often than not, and labels without the missing classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([code for code in range(classes) if code not in missing], count)
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels.astype(np.int64)


def calibration_error(probabilities, labels):
    """The sum over bins of their share of the images times |accuracy - mean confidence|."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for bin in range(BINS):
        inside = (confidence > bin / BINS) & (confidence <= (bin + 1) / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_metrics_are_those_of_scikit_learn(classes):
    probabilities, labels = examples(classes)
    losses, names = -np.log(probabilities[np.arange(300), labels]), [f"class {n}" for n in range(classes)]
    found, predicted = evaluate(probabilities, labels, losses, names), probabilities.argmax(axis=1)
    assert found["images"] == 300
    assert found["accuracy"] == pytest.approx(independent.accuracy_score(labels, predicted))
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert found["loss"] == pytest.approx(independent.log_loss(labels, probabilities), rel=1e-5)
    assert found["balanced_accuracy"] == pytest.approx(independent.balanced_accuracy_score(labels, predicted))
    assert found["f1_macro"] == pytest.approx(independent.f1_score(labels, predicted, average="macro"))
    scores = probabilities[:, 1] if classes == 2 else probabilities
    assert found["auroc"] == pytest.approx(independent.roc_auc_score(labels, scores, multi_class="ovr"), abs=1e-6)
    assert found["calibration_error"] == pytest.approx(calibration_error(probabilities, labels), abs=1e-6)
    columns = independent.precision_recall_fscore_support(labels, predicted)
    for code, name in enumerate(names):
        of_class = found["classes"][name]
        expected = [column[code] for column in columns]
        assert [of_class[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(expected)
        assert of_class["auroc"] == pytest.approx(independent.roc_auc_score(labels == code, probabilities[:, code]))


def test_confidences_of_one_are_in_the_last_bin():
    probabilities = np.array([[1, 0]] * 10 + [[0.95, 0.05]] * 10, np.float32)
    labels = np.array([1] + [0] * 19)
    found = evaluate(probabilities, labels, np.zeros(20), ["a", "b"])["calibration_error"]
    assert found == pytest.approx(calibration_error(probabilities, labels), abs=1e-6) == pytest.approx(0.025, abs=1e-6)


def test_the_calibration_error_of_many_images():
    """All are right, with a probability of 0.99."""
    probabilities = np.repeat(np.float32([[0.99, 0.01]]), 400_000, axis=0)
    found = evaluate(probabilities, np.zeros(400_000, np.int64), np.zeros(400_000), ["a", "b"])["calibration_error"]
    assert found == pytest.approx(0.01, abs=1e-6)


def test_classes_without_images_do_not_count():
    probabilities, labels = examples(4, missing=(2,))
    found = evaluate(probabilities, labels, np.zeros(300), list("abcd"))
    predicted, present = probabilities.argmax(axis=1), [0, 1, 3]
    assert (predicted == 2).any()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["balanced_accuracy"] == pytest.approx(independent.balanced_accuracy_score(labels, predicted))
    f1 = independent.f1_score(labels, predicted, labels=present, average="macro")
    assert found["f1_macro"] == pytest.approx(f1)
    assert found["classes"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "auroc": None, "support": 0}


def test_images_of_one_class_only():
    probabilities, labels = examples(2, missing=(1,))
    found = evaluate(probabilities, labels, np.zeros(300), ["cat", "dog"])
    assert found["auroc"] is None and found["balanced_accuracy"] == pytest.approx(found["accuracy"])
