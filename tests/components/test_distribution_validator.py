"""DistributionValidator on real statistics: what shifts is told, what resampling explains is not."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tfx.types import artifact_utils, standard_artifacts

from stillhouse.components.distribution_validator.executor import DistributionValidatorParameters, Executor
from stillhouse.components.distribution_validator.shifts import read_shifts
from stillhouse.components.report.data import shift_warnings, shifts_of
from stillhouse.modules.errors import UserError

SHOPS = list("abcde")


def rows(count, seed, shift=0.0, shares=None):
    """Returns examples of a symmetric, a skewed and an integer number and a string."""
    random = np.random.RandomState(seed)
    return pd.DataFrame(
        {
            "height": random.normal(size=count) + shift,
            "price": random.exponential(size=count),
            "count": random.randint(0, 5, count),
            "shop": random.choice(SHOPS, count, p=shares),
        }
    )


def statistics(folder, table, split):
    """Returns the artifact that StatisticsGen would write."""
    artifact = standard_artifacts.ExampleStatistics()
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names([split])
    (folder / f"Split-{split}").mkdir(parents=True)
    message = tfdv.generate_statistics_from_dataframe(table)
    (folder / f"Split-{split}" / "FeatureStats.pb").write_bytes(message.SerializeToString())
    return artifact


def examples(folder, table, split, span):
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder)
    artifact.set_int_custom_property("span", span)
    artifact.split_names = artifact_utils.encode_split_names([split])
    (folder / f"Split-{split}").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / "data.gz"), "GZIP") as writer:
        for row in table.to_dict("records"):
            example = tf.train.Example()
            for name, value in row.items():
                feature = example.features.feature[name]
                if isinstance(value, str):
                    feature.bytes_list.value.append(value.encode())
                elif isinstance(value, int):
                    feature.int64_list.value.append(value)
                elif not np.isnan(value):
                    feature.float_list.value.append(value)
            writer.write(example.SerializeToString())
    return artifact


@pytest.fixture
def compare(tmp_path):
    def run(checked, baseline, spans=(2, 1), **changes):
        parameters = {"thresholds": {}, "stop": False, "between_spans": True, "omitted": ""} | changes
        output = standard_artifacts.ExampleAnomalies()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        output.uri = str(folder / "anomalies")
        inputs = {
            "examples": [examples(folder / "examples", checked, "train", spans[0])],
            "statistics": [statistics(folder / "statistics", checked, "train")],
            "baseline_examples": [examples(folder / "baseline_examples", baseline, "train", spans[1])],
            "baseline_statistics": [statistics(folder / "baseline_statistics", baseline, "train")],
        }
        properties = DistributionValidatorParameters(splits=("train", "train"), **parameters).properties()
        Executor().Do(inputs, {"anomalies": [output]}, properties)
        return output

    return run


def shifted(output):
    return [shift.feature for shift in read_shifts(output) if shift.shifted]


@pytest.mark.parametrize("count", [60, 6000])
def test_samples_of_one_distribution_do_not_differ_however_small_they_are(compare, count):
    output = compare(rows(count, seed=1), rows(count, seed=2))
    assert {shift.feature for shift in read_shifts(output)} == {"height", "price", "count", "shop"}
    assert shifted(output) == []
    assert shift_warnings(shifts_of({"drift": [output]})) == []


def test_what_has_shifted_is_named_with_distance_and_threshold(compare):
    other = rows(600, seed=1, shift=1.0, shares=[0.6, 0.1, 0.1, 0.1, 0.1])
    output = compare(other, rows(600, seed=2))
    assert shifted(output) == ["height", "shop"]
    shop = next(shift for shift in read_shifts(output) if shift.feature == "shop")
    baseline = rows(600, seed=2)["shop"].value_counts(normalize=True)
    expected = (other["shop"].value_counts(normalize=True) - baseline).abs().max()
    assert shop.distance == pytest.approx(expected)
    assert 0.02 <= shop.threshold < 0.2
    assert f"feature 'shop': L-infinity distance {expected:.3f}, allowed {shop.threshold:.3f}" == shop.reason
    assert len(shift_warnings(shifts_of({"drift": [output]}))) == 2


def test_small_data_are_allowed_more_than_large_ones(compare):
    thresholds = [
        {shift.feature: shift.threshold for shift in read_shifts(compare(rows(n, 1), rows(n, 2)))} for n in (60, 6000)
    ]
    assert all(thresholds[0][name] > thresholds[1][name] for name in thresholds[0])


def test_a_threshold_of_the_settings_takes_the_place_of_the_resampled_one(compare):
    checked, baseline = rows(600, seed=1, shift=1.0), rows(600, seed=2)
    assert shifted(compare(checked, baseline, thresholds={"height": 0.9})) == []
    assert shifted(compare(baseline, baseline, thresholds={"height": 0.9})) == []
    assert "price" in shifted(compare(checked, baseline, thresholds={"price": 1e-6, "height": 0.9}))


def test_a_feature_without_values_any_more_has_shifted(compare):
    checked = rows(600, seed=1).assign(price=np.nan)
    output = compare(checked, rows(600, seed=2))
    assert shifted(output) == ["price"]
    assert shift_warnings(shifts_of({"drift": [output]})) == [
        "drift: feature 'price': has no values to compare any more, from the earlier spans"
    ]


def test_an_omitted_feature_is_not_compared(compare):
    output = compare(rows(60, seed=1), rows(60, seed=2), omitted="shop")
    assert {shift.feature for shift in read_shifts(output)} == {"height", "price", "count"}


def test_the_first_span_has_nothing_to_be_compared_with(compare):
    output = compare(rows(60, seed=1, shift=9.0), rows(60, seed=2), spans=(1, 1))
    assert read_shifts(output) == []


def test_a_run_stops_at_a_shift_if_the_settings_say_so(compare):
    checked, baseline = rows(600, seed=1, shift=1.0), rows(600, seed=2)
    with pytest.raises(UserError, match=r"(?s)of 1 features differ .*data.drift.stop: false:\n  feature 'height': Jen"):
        compare(checked, baseline, stop=True)
    assert shifted(compare(rows(600, seed=3), baseline, stop=True)) == []
