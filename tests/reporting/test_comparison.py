import numpy as np
import pytest
from scipy import stats
from scipy.stats import bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from transfer_learning.reporting.comparison import Comparisons, compare, holm, pareto_front
from transfer_learning.reporting.prediction_table import PredictionTable


def two_models(both, only_a, only_b, neither):
    cells = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, only_a, only_b, neither], axis=0).astype(bool)
    return np.random.default_rng(0).permutation(cells).T


def table(right, digests=None, labels=None, names=("cat", "dog")):
    """Predictions for images that alternate between two classes; `right` says which are correct."""
    labels = np.arange(len(right)) % 2 if labels is None else np.array(labels)
    predicted = np.where(right, labels, 1 - labels)
    digests = [f"{n:03d}" for n in range(len(right))] if digests is None else digests
    return PredictionTable(
        digests, digests, ["val"] * len(right), labels, np.eye(2, dtype=np.float32)[predicted], names
    )


@pytest.mark.parametrize("cells", [(50, 0, 0, 3), (50, 3, 0, 0), (5, 1, 9, 2), (900, 60, 40, 0), (3000, 700, 600, 700)])
def test_p_value_is_that_of_the_exact_test(cells):
    a, b = two_models(*cells)
    both, only_a, only_b, neither = cells
    found = compare(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(mcnemar([[both, only_a], [only_b, neither]], exact=True).pvalue)
    assert found.difference == pytest.approx(a.mean() - b.mean())


@pytest.mark.parametrize("cells", [(300, 60, 40, 100), (180, 15, 2, 3)])
def test_interval_is_that_of_a_bootstrap_over_images(cells):
    a, b = two_models(*cells)
    difference = a.astype(float) - b
    expected = bootstrap((difference,), np.mean, method="percentile", random_state=1).confidence_interval
    spread = difference.std() / len(a) ** 0.5
    assert compare(a, b)[1:3] == pytest.approx((expected.low, expected.high), abs=0.2 * spread)
    assert compare(a, b) == compare(a, b)  # its random numbers have a seed


def test_swapped_is_the_comparison_of_b_with_a():
    a, b = two_models(20, 9, 2, 4)
    swapped, expected = compare(a, b).swapped(), compare(b, a)
    assert (swapped.difference, swapped.only_a, swapped.p) == (expected.difference, expected.only_a, expected.p)
    assert (swapped.low, swapped.high) == (-compare(a, b).high, -compare(a, b).low)


@pytest.mark.parametrize("p_values", [[], [0.2], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5, 0.001, 1.0], [0.02] * 5])
def test_holm_equals_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(list(expected))


def test_models_are_compared_image_by_image_in_whatever_order_their_tables_are():
    a, b = two_models(20, 9, 2, 4)
    order = np.random.default_rng(1).permutation(len(a))
    found = Comparisons([table(a), table(b).take(order)])
    assert found.pairs == {(0, 1): compare(a, b)} and found.sets == [0, 0] and found.best == [0]


def test_copies_of_an_image_in_two_classes_are_compared_class_by_class():
    """Whichever of them is first in a table: here both models call the image d a cat."""
    one = table([1, 0, 1, 1], ["d", "d", "e", "f"], labels=[0, 1, 0, 1])
    other = table([0, 1, 0, 1], ["d", "d", "e", "f"], labels=[1, 0, 0, 1])
    found = Comparisons([one, other]).pairs[0, 1]
    assert (found.only_a, found.only_b) == (1, 0)


def test_class_codes_may_differ_if_the_names_are_the_same():
    a, b = two_models(20, 9, 2, 4)
    other = table(b, labels=1 - np.arange(len(b)) % 2, names=("dog", "cat"))
    assert Comparisons([table(a), other]).pairs == {(0, 1): compare(a, b)}


@pytest.mark.parametrize("change", ["another image", "one image less", "another label"])
def test_models_with_other_images_are_not_compared(change):
    a, b = two_models(20, 9, 2, 4)
    labels = np.arange(len(b)) % 2
    other = {
        "another image": table(b, [*(f"{n:03d}" for n in range(len(b) - 1)), "new"]),
        "one image less": table(b[:-1]),
        "another label": table(b, labels=[1 - labels[0], *labels[1:]]),
    }[change]
    found = Comparisons([table(a), other, None])
    assert found.pairs == {} and found.sets == [0, 1, None] and found.best == [0, 1] and found.with_best == {}
    assert [found.verdict(n) for n in range(3)] == ["best", "best of set 2", "not compared"]


def test_images_of_several_models_count_once_for_each_set():
    three = table([1, 0, 1])
    found = Comparisons([three, three, table([1, 0], ["x", "y"]), None, None])
    counts = {0: 3, 1: 3, 2: 2, 3: 3, 4: 3}
    for models, expected in (([0], 3), ([0, 1], 3), ([0, 1, 2], 5), ([0, 1, 3], 3), ([3], 3), ([3, 4], 3)):
        assert found.total_images({model: counts[model] for model in models}) == expected


def test_verdicts_use_corrected_p_values():
    images = 200
    best = np.ones(images, dtype=bool)
    models = [np.arange(images) >= wrong for wrong in (6, 6, 40)]  # p = 0.031 twice, and a very small one
    found = Comparisons([table(right) for right in (models[0], best, *models[1:])])
    assert found.best == [1]
    assert compare(best, models[0]).p < 0.05 < found.with_best[0][1]
    assert [found.verdict(n) for n in range(4)] == ["≈ best", "best", "≈ best", "below best"]
    assert len(found.pairs) == 6 and found.with_best[3][0].difference == pytest.approx(-0.2)
    assert found.with_best[3][0] == found.pairs[1, 3].swapped()


def test_mean_difference_of_two_single_models_is_that_of_a_paired_t_test():
    a, b = two_models(300, 60, 40, 100)
    found = Comparisons([table(a), table(b)]).mean_difference([0], [1])
    expected = stats.ttest_rel(a.astype(float), b.astype(float)).confidence_interval(0.95)
    assert found == pytest.approx((a.mean() - b.mean(), *expected))
    assert found[1:] == pytest.approx(compare(a, b)[1:3], abs=0.005)


def test_mean_difference_of_models_that_are_equal_on_all_images():
    right = np.arange(10) < 7
    assert Comparisons([table(right), table(right)]).mean_difference([0], [1]) == (0, 0, 0)


def test_mean_difference_of_repetitions_alone_is_welchs_t_interval():
    """Where each image's difference is about the same, only the repetitions vary."""
    accuracies = [0.70, 0.74, 0.71], [0.60, 0.66, 0.61]
    rng = np.random.default_rng(0)
    models = [table(rng.permutation(100_000) < 100_000 * each) for group in accuracies for each in group]
    found = Comparisons(models).mean_difference([0, 1, 2], [3, 4, 5])
    expected = stats.ttest_ind(*accuracies, equal_var=False).confidence_interval(0.95)
    assert found[1:] == pytest.approx(tuple(expected), abs=0.003)


@pytest.mark.parametrize("repetitions", [2, 3])
def test_mean_difference_of_repeated_models_covers_images_and_repetitions(repetitions):
    """95 % intervals contain the true difference in about 95 % of experiments, with new images and new models each."""
    rng = np.random.default_rng(0)
    which = range(repetitions)

    def experiment():
        difficulty = rng.normal(size=(1, 400))  # of the images, for all models
        skills = (skill + 0.1 * rng.normal(size=(repetitions, 1)) for skill in (1.2, 1.0))
        models = [rng.normal(skill, 1, (repetitions, 400)) > difficulty for skill in skills]
        found = Comparisons([table(right) for group in models for right in group])
        return found.mean_difference([*which], [number + repetitions for number in which])

    found = np.array([experiment() for _ in range(200)])
    truth = found[:, 0].mean()
    assert 0.93 <= np.mean((found[:, 1] < truth) & (truth < found[:, 2])) <= 0.995


def test_mean_difference_needs_the_same_images():
    right = np.arange(10) < 7
    other = [f"other {n}" for n in range(10)]
    found = Comparisons([table(right), table(right, other), None, table(~right)])
    assert found.mean_difference([0], [1]) is None and found.mean_difference([0, 1], [3]) is None
    assert found.mean_difference([0], [2]) is None and found.mean_difference([2], [2]) is None
    assert found.mean_difference([0], [3])[0] == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(20))
def test_pareto_front_is_that_of_a_sweep_from_the_largest(seed):
    points = np.random.default_rng(seed).integers(0, 8, (25, 2)).tolist()  # with ties
    expected, highest = set(), -1
    for x in sorted({x for x, _ in points}, reverse=True):
        best = max(y for other, y in points if other == x)
        if best > highest:
            expected.add((x, best))
        highest = max(highest, best)
    assert {tuple(point) for point, on_front in zip(points, pareto_front(points)) if on_front} == expected
    assert [tuple(point) in expected for point in points] == pareto_front(points)


def test_pareto_front_of_equal_points_and_of_none():
    assert pareto_front([(1.0, 2.0)] * 2 + [(1.0, 1.0)]) == [True, True, False] and pareto_front([]) == []
