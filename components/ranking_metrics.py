"""Ranking metrics over the candidates of each query, for TFMA.

The candidates of a query are ranked by their probability of class 1. Equal probabilities count as the mean over all
orders, so that a model that cannot distinguish candidates gets the result of a random ranking. Queries without a
relevant candidate are skipped.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_util


def reciprocal_rank(relevant: np.ndarray, scores: np.ndarray) -> float:
    """Returns 1 / rank of the first relevant candidate (Voorhees 1999, TREC-8 question answering track).

    Args:
      relevant: bool [candidates], at least one true.
      scores: float [candidates].
    """
    best = scores[relevant].max()
    above = int((scores > best).sum())
    equal = scores == best
    tied_irrelevant, tied_relevant = int((equal & ~relevant).sum()), int((equal & relevant).sum())
    # The first of the tied relevant candidates comes after k irrelevant ones with the probability that the k before it
    # are irrelevant.
    total, chance = Fraction(0), Fraction(1)
    for k in range(tied_irrelevant + 1):
        left = tied_irrelevant - k
        first = chance * Fraction(tied_relevant, tied_relevant + left)
        total += first / (above + k + 1)
        chance -= first
    return float(total)


def precision_at_one(relevant: np.ndarray, scores: np.ndarray) -> float:
    """Returns whether the first candidate is relevant, 0 or 1, or the fraction of relevant ones among several first."""
    return float(relevant[scores == scores.max()].mean())


class _MeanOverQueries(beam.CombineFn):
    def __init__(self, of_query: Callable[[np.ndarray, np.ndarray], float], key, eval_config, example_weighted: bool):
        self._of_query = of_query
        self._key = key
        self._eval_config = eval_config
        self._example_weighted = example_weighted

    def create_accumulator(self):
        return 0.0, 0

    def add_input(self, accumulator, element):
        labels, predictions, _ = next(
            metric_util.to_label_prediction_example_weight(
                element,
                eval_config=self._eval_config,
                model_name=self._key.model_name,
                output_name=self._key.output_name,
                example_weighted=self._example_weighted,
                flatten=False,
                require_single_example_weight=True,
            )
        )
        relevant = np.reshape(labels, -1) == 1
        if not relevant.any():
            return accumulator
        scores = np.reshape(predictions, [len(relevant), -1])[:, -1]  # of class 1, the last of two
        total, queries = accumulator
        return total + self._of_query(relevant, scores), queries + 1

    def merge_accumulators(self, accumulators: Iterable):
        totals, queries = zip(*accumulators, strict=True)
        return sum(totals), sum(queries)

    def extract_output(self, accumulator):
        total, queries = accumulator
        return {self._key: total / queries if queries else float("nan")}


def _computations(of_query: Callable[[np.ndarray, np.ndarray], float]):
    # TFMA passes the arguments with these names.
    def compute(
        name: str,
        eval_config=None,
        model_names=None,
        output_names=None,
        example_weighted: bool = False,
        query_key: str = "",
    ):
        computations = []
        for model in model_names or [""]:
            for output in output_names or [""]:
                key = tfma.metrics.MetricKey(name, model, output, example_weighted=example_weighted)
                combiner = _MeanOverQueries(of_query, key, eval_config, example_weighted)
                computations.append(tfma.metrics.MetricComputation(keys=[key], preprocessors=None, combiner=combiner))
        return computations

    return compute


class MeanReciprocalRank(tfma.metrics.Metric):
    """Mean over queries of 1 / rank of the first relevant candidate."""

    def __init__(self, name: str = "mean_reciprocal_rank"):
        """Stores the name of the metric in reports."""
        super().__init__(_computations(reciprocal_rank), name=name)


class PrecisionAtOne(tfma.metrics.Metric):
    """Fraction of queries whose first candidate is relevant."""

    def __init__(self, name: str = "precision_at_one"):
        """Stores the name of the metric in reports."""
        super().__init__(_computations(precision_at_one), name=name)
