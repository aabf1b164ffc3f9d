"""Reading what TFMA wrote."""

from types import SimpleNamespace

from stillhouse.components.evaluation import OVERALL, _model_metrics


def test_metrics_come_with_their_intervals_where_there_are_some():
    bounded = {"boundedValue": {"value": 0.9, "lowerBound": 0.8, "upperBound": 1.0, "methodology": "POISSON"}}
    of_all = {"accuracy": bounded, "accuracy_diff": bounded, "example_count": {"doubleValue": 100.0}}
    # Zeros are left out of the message, and a bound that cannot be computed is a word.
    of_few = {"accuracy": {"boundedValue": {"upperBound": "NaN"}}, "loss": {"doubleValue": 0.5}}
    result = SimpleNamespace(slicing_metrics=[((), {"": {"": of_all}}), ((("label", 3),), {"": {"": of_few}})])
    found = _model_metrics(result)
    assert found.overall == {"accuracy": 0.9, "example_count": 100.0}
    assert found.intervals[OVERALL] == {"accuracy": (0.8, 1.0)}
    assert found.slices["label=3"] == {"accuracy": 0.0, "loss": 0.5}
    low, high = found.intervals["label=3"]["accuracy"]
    assert low == 0
    assert high != high
