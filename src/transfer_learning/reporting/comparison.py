"""Which differences are statistically significant: two models on the same images, and many such comparisons."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, stdtrit

from transfer_learning.reporting.prediction_table import PredictionTable

RESAMPLES = 2000
SIGNIFICANCE_LEVEL = 0.05


class Comparison(NamedTuple):
    """Model A against model B on the same N images."""

    difference: float  # accuracy of A minus accuracy of B, in [-1, 1]
    low: float  # the 95 % bootstrap interval of the difference
    high: float
    only_a: int  # images that only A classifies correctly
    only_b: int
    p: float  # McNemar's exact test, two-sided, in [0, 1]

    def swapped(self) -> "Comparison":
        """B against A."""
        difference, low, high = (0.0 - value for value in (self.difference, self.high, self.low))  # 0 and not -0
        return Comparison(difference, low, high, self.only_b, self.only_a, self.p)


def compare(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Comparison:
    """Compares two models; `a` and `b`, (N,) bool, say which of the same images each classifies correctly.

    A resample of the images is a multinomial sample of the three kinds of them: only A correct, only B correct, others.
    """
    only_a, only_b, total = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))  # scipy.stats is slow to import
    shares = np.array([only_a, only_b, total - only_a - only_b]) / total
    counts = np.random.default_rng(seed).multinomial(total, shares, size=RESAMPLES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / total, [0.025, 0.975])
    return Comparison((only_a - only_b) / total, float(low), float(high), only_a, only_b, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the same order, in [0, 1]."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors))
    return corrected.tolist()


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the Pareto front: no other one is as good in both coordinates and better in one.

    Larger is better. Equal points are on the front together.
    """
    return [not any(x >= point[0] and y >= point[1] and (x, y) != tuple(point) for x, y in points) for point in points]


class Comparisons:
    """All pairs of R models whose tables have the same images and classes; the models have the numbers 0 to R - 1.

    Attributes:
        sets: for each model, the number of its set of images; None if it has no table.
        pairs: the comparison of models a < b with the same set.
        corrected: their p-values, corrected for the number of pairs.
        best: for each set, the model with the most correct images, the first of them.
        correct: for each model, which of its images it classifies correctly, (N,) bool.
        with_best: each other model against the best of its set, and the p-value, corrected for the number of these.
    """

    def __init__(self, tables: Sequence[PredictionTable | None]):
        images = [_images(table) if table else None for table in tables]
        known = list(dict.fromkeys(filter(None, images)))
        self.sets = [known.index(each) if each else None for each in images]
        self.correct = [_correct(table) if table else np.zeros(0, dtype=bool) for table in tables]
        members = [[model for model, each in enumerate(self.sets) if each == number] for number in range(len(known))]
        pairs = [pair for each in members for pair in combinations(each, 2)]
        self.pairs = {(a, b): compare(self.correct[a], self.correct[b]) for a, b in sorted(pairs)}
        self.corrected = dict(zip(self.pairs, holm([pair.p for pair in self.pairs.values()])))
        self.best = [max(each, key=lambda model: int(self.correct[model].sum())) for each in members]
        others = {model: best for best, each in zip(self.best, members) for model in each if model != best}
        found = [self.pairs.get((a, b)) or self.pairs[b, a].swapped() for a, b in others.items()]
        self.with_best = dict(zip(others, zip(found, holm([pair.p for pair in found]))))

    def mean_difference(self, a: Sequence[int], b: Sequence[int]) -> tuple[float, float, float] | None:
        """The mean accuracy of models `a` minus that of `b`, in [-1, 1], and the ends of its 95 % interval.

        None if their images differ.

        The interval is for another sample of images, and for other repetitions of the models: Student's t with the
        degrees of freedom of Welch and Satterthwaite, since repetitions are few.
        """
        sets = {self.sets[model] for model in (*a, *b)}
        if len(sets) > 1 or None in sets:
            return None
        correct = [np.array([self.correct[model] for model in models]) for models in (a, b)]
        differences = correct[0].mean(axis=0) - correct[1].mean(axis=0)  # of each image
        repetitions = [each.mean(axis=1) for each in correct if len(each) > 1]  # accuracies
        variances = np.array([np.var(each, ddof=1) / len(each) for each in (differences, *repetitions)])
        difference, variance = float(differences.mean()), float(variances.sum())
        if variance == 0:
            return difference, difference, difference
        freedom = np.array([len(each) - 1 for each in (differences, *repetitions)])
        half = float(stdtrit(variance**2 / np.sum(variances**2 / freedom), 1 - SIGNIFICANCE_LEVEL / 2)) * variance**0.5
        return difference, difference - half, difference + half

    def total_images(self, counts: Mapping[int, int]) -> int:
        """The images of some models together, from the number of images of each: those of a set count once.

        Models without predictions count only if all are such; then their images are taken for the same ones.
        """
        of_set = {self.sets[model]: count for model, count in counts.items()}
        known = [count for number, count in of_set.items() if number is not None]
        return sum(known) if known else of_set[None]

    def verdict(self, model: int) -> str:
        """What is known about a model and the best one on the same images, which are named unless they are set 1."""
        if self.sets[model] is None:
            return "not compared"
        images = f" of set {self.sets[model] + 1}" if self.sets[model] else ""  # type: ignore[operator]
        if model not in self.with_best:
            return f"best{images}"
        is_significant = self.with_best[model][1] < SIGNIFICANCE_LEVEL
        return f"{'below' if is_significant else '≈'} best{images}"


def _images(table: PredictionTable) -> tuple:
    """The images and their classes, sorted."""
    return tuple(sorted((digest, table.class_names[code]) for digest, code in zip(table.digests, table.labels)))


def _correct(table: PredictionTable) -> np.ndarray:
    """Which images are classified correctly, (N,) bool, in the order of `_images`."""
    names = [table.class_names[code] for code in table.labels]
    order = sorted(range(len(names)), key=lambda row: (table.digests[row], names[row]))
    return (table.predicted == table.labels)[order]
