"""Paired tests: how much of a difference between two models is more than the luck of the eval examples.

Both models answer the same examples, so their difference is tested example by example, which tells smaller changes than
two separate intervals do. The unit is an example; for a ranking, a query.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest

from stillhouse.components.predictions.table import PredictionTable
from stillhouse.components.ranking_metrics import precision_at_one, reciprocal_rank
from stillhouse.modules.models.serving import SMALLEST_PROBABILITY, example_metrics

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_RESAMPLES = 200
DRAWS = 20_000_000  # resamples × units, at most
DRAWS_IN_MEMORY = 2_000_000
# From this many units on the bootstrap of a mean is the normal distribution, to three digits.
NORMAL_UNITS = 10_000
RANKING = {"mean_reciprocal_rank": reciprocal_rank, "precision_at_one": precision_at_one}
AREAS = ("auc", "auc_precision_recall")


@dataclass(frozen=True)
class PairedChange:
    """The change of a metric from one model to another, positive where it gets better, with its uncertainty."""

    change: float
    low: float  # ends of the interval
    high: float
    p: float  # two-sided, of no change
    test: str  # McNemar or bootstrap
    confidence: float  # of the interval
    units: int  # examples, or queries with a relevant candidate

    @property
    def verdict(self) -> str:
        """better, worse, or undecided: the interval holds both."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "undecided"


@dataclass(frozen=True)
class Recovered:
    """The share of the gap between two models that a third one closes, with its interval."""

    share: float
    low: float
    high: float


class PairedTests:
    """Paired tests of one metric between the models of a table; the resamples are drawn once for all pairs.

    A metric that is a mean over units is tested by the percentile bootstrap over them (Efron & Tibshirani 1993, chapter
    13; Poisson weights), from NORMAL_UNITS on by the normal approximation; areas under curves always by the bootstrap.
    For accuracy p is that of McNemar's exact test (McNemar 1947): the binomial test of the examples on which only one
    of the models is right.
    """

    def __init__(self, table: PredictionTable, metric: str, lower_is_better: bool, seed: int = 0):
        """Prepares the tests.

        Args:
          table: predictions of the models for the same examples.
          metric: short name, as `stillhouse.components.evaluation.metric_name` gives it.
          lower_is_better: whether a smaller value is the better one.
          seed: of the resampling.
        """
        self._table = table
        self._metric = metric
        self.lower_is_better = lower_is_better
        self._sign = -1.0 if lower_is_better else 1.0
        self._seed = seed

    def change(self, model: str, other: str, confidence: float = CONFIDENCE) -> PairedChange | None:
        """Returns the change from `other` to `model`, names in the table; None: the metric is undefined here."""
        if self._metric in AREAS:
            samples = self._areas[model] - self._areas[other]
            change, resampled = float(samples[0]), samples[1:][np.isfinite(samples[1:])]
            if not math.isfinite(change) or not len(resampled):
                return None
            return PairedChange(change, *_interval(resampled, confidence), "bootstrap", confidence, len(self._table))
        differences = self._sign * (self._values[model] - self._values[other])
        units = len(differences)
        if not units:
            return None
        if units >= NORMAL_UNITS:
            low, high, p = _normal_interval(differences, confidence)
        else:
            low, high, p = _interval(self._sign * (self._means[model] - self._means[other]), confidence)
        test = "bootstrap"
        if self._metric == "accuracy" and self._table.head == "classification":
            better, worse = int((differences > 0).sum()), int((differences < 0).sum())
            p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
            test = "McNemar"
        return PairedChange(float(differences.mean()), low, high, p, test, confidence, units)

    def recovered(
        self, model: str, lower: str, upper: str, confidence: float = CONFIDENCE
    ) -> tuple[Recovered | None, str | None]:
        """Returns (model − lower) / (upper − lower) with its bootstrap interval, or None and the reason.

        A ratio to a gap that may be 0 has no interval of use, so the gap's own interval must be above 0. The resamples
        are those of `change`: all three models meet the same examples in each.

        Args:
          model: name of the student.
          lower: of the baseline.
          upper: of the teacher or ensemble.
          confidence: of the interval, and of the gap's.
        """
        gap, gain = self.change(upper, lower, confidence), self.change(model, lower, confidence)
        if gap is None or gain is None:
            return None, f"{self._metric} is undefined on the eval examples"
        if gap.low <= 0:
            changed = f"improvement of {self._metric}" if self.lower_is_better else self._metric
            return None, (
                f"{upper} is not shown to be better than {lower}: {changed} {gap.change:+.4f}, {confidence:.0%} "
                f"interval {gap.low:+.4f} to {gap.high:+.4f}"
            )
        of_models = self._areas if self._metric in AREAS else self._means
        resampled = {name: of_models[name] for name in (model, lower, upper)}
        if self._metric in AREAS:  # the first is no resample
            resampled = {name: samples[1:] for name, samples in resampled.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = (resampled[model] - resampled[lower]) / (resampled[upper] - resampled[lower])
        low, high, _ = _interval(shares[np.isfinite(shares)], confidence)
        return Recovered(gain.change / gap.change, low, high), None

    @cached_property
    def _values(self) -> dict[str, np.ndarray]:
        """By model [units]."""
        return {name: unit_values(self._table, name, self._metric) for name in self._table.models}

    @cached_property
    def _means(self) -> dict[str, np.ndarray]:
        """By model [resamples]."""
        values = np.stack(list(self._values.values()), axis=1)
        random = np.random.default_rng(self._seed)
        means = [
            weights @ values / np.maximum(weights.sum(axis=1, keepdims=True), 1)
            for weights in _weights(random, len(values))
        ]
        return dict(zip(self._values, np.concatenate(means).T, strict=True))

    @cached_property
    def _areas(self) -> dict[str, np.ndarray]:
        """By model [1 + resamples]; the first is of the examples as they are."""
        table = self._table
        # Of several labels each pair of example and label counts, resampled by examples.
        per_example = table.labels.shape[1] if table.head == "multi_label" else 1
        positive = table.labels.reshape(-1) == 1
        make_area = _area_under_roc if self._metric == "auc" else _average_precision
        area_of = {}
        for name, answers in table.models.items():
            scores = answers.reshape(-1) if table.head == "multi_label" else answers[:, 1]
            area_of[name] = make_area(positive, scores.astype(np.float64))
        samples = {name: [area(np.ones([1, len(positive)], np.float32))] for name, area in area_of.items()}
        for weights in _weights(np.random.default_rng(self._seed), len(table)):
            repeated = np.repeat(weights, per_example, axis=1)
            for name, area in area_of.items():
                samples[name].append(area(repeated))
        return {name: np.concatenate(parts) for name, parts in samples.items()}


def unit_values(table: PredictionTable, model: str, metric: str) -> np.ndarray:
    """Returns the metric of each unit, float64 [units], whose mean is the metric.

    Args:
      table: predictions.
      model: name in the table.
      metric: accuracy, loss, mean_absolute_error, mean_reciprocal_rank or precision_at_one.
    """
    answers, labels = table.models[model].astype(np.float64), table.labels
    if metric in RANKING:
        return _per_query(table, answers[:, 1], RANKING[metric])
    if table.head != "classification":
        return example_metrics(table.head, answers, labels)[metric]
    known = table.known_labels(answers.shape[1])
    values = np.full(len(table), 0.0 if metric == "accuracy" else -np.log(SMALLEST_PROBABILITY))
    values[known] = example_metrics(table.head, answers[known], labels[known])[metric]
    return values


def _per_query(table: PredictionTable, scores: np.ndarray, of_query: Callable) -> np.ndarray:
    if table.queries is None:
        raise ValueError("a ranking metric needs queries")
    _, query = np.unique(table.queries, return_inverse=True)
    order = np.argsort(query, kind="stable")
    values = []
    for rows in np.split(order, np.flatnonzero(np.diff(query[order])) + 1):
        relevant = table.labels[rows] == 1
        if relevant.any():
            values.append(of_query(relevant, scores[rows]))
    return np.array(values)


def _weights(random: np.random.Generator, units: int):
    """Yields Poisson weights of resamples, float32 [some, units]."""
    left = int(np.clip(DRAWS // units, MIN_RESAMPLES, RESAMPLES))
    block = max(1, DRAWS_IN_MEMORY // units)
    while left > 0:
        yield random.poisson(1.0, [min(block, left), units]).astype(np.float32)
        left -= block


def _normal_interval(differences: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Returns both ends of the interval, and p."""
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    mean = float(differences.mean())
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    p = 2 * NormalDist().cdf(-abs(mean) / error) if error else float(mean == 0)
    return mean - reach, mean + reach, p


def _interval(resampled: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """As `_normal_interval`, by the bootstrap: [resamples] -> quantiles."""
    low, high = np.quantile(resampled, [0.5 - confidence / 2, 0.5 + confidence / 2])
    tail = min((resampled <= 0).mean(), (resampled >= 0).mean())
    return float(low), float(high), float(np.clip(2 * tail, 1 / len(resampled), 1))


def _grouped(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order by falling score, and where each group of equal scores begins in it."""
    order = np.argsort(-scores, kind="stable")
    return order, np.concatenate([[0], np.flatnonzero(np.diff(scores[order])) + 1])


def _area_under_roc(positive: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from weights [resamples, examples] to the area under the ROC curve of each resample."""
    order, begins = _grouped(positive, scores)

    def area(weights: np.ndarray) -> np.ndarray:
        sorted_weights = weights[:, order].astype(np.float64)
        positives = np.add.reduceat(sorted_weights * positive[order], begins, axis=1)
        negatives = np.add.reduceat(sorted_weights * ~positive[order], begins, axis=1)
        above = np.cumsum(positives, axis=1) - positives / 2  # a tie counts half
        with np.errstate(invalid="ignore", divide="ignore"):
            return (above * negatives).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))

    return area


def _average_precision(positive: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """As `_area_under_roc`, of the precision-recall curve: the mean precision at the positives."""
    order, begins = _grouped(positive, scores)

    def area(weights: np.ndarray) -> np.ndarray:
        sorted_weights = weights[:, order].astype(np.float64)
        positives = np.add.reduceat(sorted_weights * positive[order], begins, axis=1)
        everything = np.add.reduceat(sorted_weights, begins, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.cumsum(positives, axis=1) / np.maximum(np.cumsum(everything, axis=1), 1)
            return (precision * positives).sum(axis=1) / positives.sum(axis=1)

    return area
