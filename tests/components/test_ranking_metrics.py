"""Ranking metrics, against all orders of a few candidates, and in TFMA itself."""

import itertools

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_model_analysis.proto import config_pb2

from stillhouse.components.ranking_metrics import precision_at_one, reciprocal_rank

candidates = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=6).filter(
    lambda rows: any(relevant for relevant, _ in rows)
)


def orders(rows):
    """All orders of the candidates in which a better score comes first."""
    return [order for order in itertools.permutations(rows) if all(a[1] >= b[1] for a, b in itertools.pairwise(order))]


@given(candidates)
def test_equal_scores_count_as_the_mean_over_all_orders(rows):
    relevant, scores = (np.array(of) for of in zip(*rows, strict=True))
    ranks = [next(n for n, (is_relevant, _) in enumerate(order, 1) if is_relevant) for order in orders(rows)]
    assert reciprocal_rank(relevant, scores) == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert precision_at_one(relevant, scores) == pytest.approx(np.mean([order[0][0] for order in orders(rows)]))


def test_in_tfma_candidates_are_ranked_query_by_query(tmp_path):
    """Three queries of four candidates, whose relevant one is at places 1, 2 and 4, and one without a relevant one."""
    import pandas as pd

    rows = []
    for query, place in (("a", 1), ("b", 2), ("c", 4), ("d", 0)):
        for rank in range(1, 5):
            score = 1.0 - rank / 10
            rows.append({"query": query, "label": int(rank == place), "prediction": score})
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key="label", prediction_key="prediction")],
        slicing_specs=[config_pb2.SlicingSpec()],
        metrics_specs=[
            config_pb2.MetricsSpec(
                query_key="query",
                metrics=[
                    config_pb2.MetricConfig(class_name=name, module="stillhouse.components.ranking_metrics")
                    for name in ("MeanReciprocalRank", "PrecisionAtOne")
                ],
            )
        ],
    )
    chance = np.random.RandomState(0)
    frame = pd.DataFrame(rows).iloc[chance.permutation(len(rows))]
    result = tfma.analyze_raw_data(frame, eval_config=config, output_path=str(tmp_path))
    ((_, metrics),) = result.slicing_metrics
    found = {name: value["doubleValue"] for name, value in metrics[""][""].items()}
    assert found["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert found["precision_at_one"] == pytest.approx(1 / 3)
