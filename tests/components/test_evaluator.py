"""The Evaluator's executor on a model of one line: what TFMA says of missing values and undefined metrics."""

import pytest
import tensorflow as tf
from tensorflow_model_analysis.proto import config_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from stillhouse.components.evaluation import EXAMPLES, STUDENT, read_evaluation
from stillhouse.components.evaluator.executor import EvaluatorParameters, Executor

# shop, label, probability of class 1
ROWS = [("a", 1, 0.9), ("a", 0, 0.2), ("b", 1, 0.7), ("b", 1, 0.4), (None, 1, 0.8), (None, 0, 0.6), (None, 0, 0.3)]


class Served(tf.Module):
    """Answers with the feature p."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples):
        p = tf.io.parse_example(examples, {"p": tf.io.FixedLenFeature([], tf.float32)})["p"]
        return {"probabilities": tf.stack([1 - p, p], axis=1)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluator")
    (folder / "examples" / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "examples" / "Split-eval" / "x.gz"), "GZIP") as writer:
        for shop, label, p in ROWS:
            example = tf.train.Example()
            example.features.feature["y"].int64_list.value.append(label)
            example.features.feature["p"].float_list.value.append(p)
            if shop:
                example.features.feature["shop"].bytes_list.value.append(shop.encode())
            writer.write(example.SerializeToString())
    model = Served()
    tf.saved_model.save(model, str(folder / "model" / "Format-Serving"), signatures={"serving_default": model.serve})
    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(signature_name="serving_default", prediction_key="probabilities", label_key="y")
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["shop"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[config_pb2.MetricConfig(class_name="ExampleCount", config=f'{{"name": "{EXAMPLES}"}}')]
            ),
            config_pb2.MetricsSpec(
                metrics=[config_pb2.MetricConfig(class_name="AUC", config='{"name": "auc"}')],
                binarize=config_pb2.BinarizationOptions(class_ids={"values": [1]}),
            ),
        ],
    )
    artifacts = {}
    for name, kind in (
        ("examples", standard_artifacts.Examples),
        ("model", standard_artifacts.Model),
        ("not_pushed", standard_artifacts.Model),
        ("evaluation", standard_artifacts.ModelEvaluation),
    ):
        artifacts[name] = kind()
        artifacts[name].uri = str(folder / name)
    artifacts["examples"].split_names = artifact_utils.encode_split_names(["eval"])
    models = {"model_1": "model", "model_2": "model", "model_3": "not_pushed"}
    inputs = {"examples": [artifacts["examples"]]} | {name: [artifacts[of]] for name, of in models.items()}
    parameters = EvaluatorParameters(
        names=["Teacher-1", STUDENT, "Pushed"], eval_config=proto_utils.proto_to_json(config)
    )
    Executor().Do(inputs, {"evaluation": [artifacts["evaluation"]]}, parameters.properties())
    return read_evaluation(artifacts["evaluation"].uri)


def test_every_model_that_exists_is_evaluated_in_one_pass(models):
    assert list(models) == ["Teacher-1", STUDENT]
    assert models["Teacher-1"] == models[STUDENT]


@pytest.fixture(scope="module")
def evaluated(models):
    return models[STUDENT]


def test_examples_without_a_value_form_a_slice_of_their_own(evaluated):
    counts = {name: metrics[EXAMPLES] for name, metrics in evaluated.slices.items()}
    assert counts == {"": 7, "shop=a": 2, "shop=b": 2, "shop=(missing)": 3}
    assert evaluated.slices["shop=(missing)"]["auc"] == pytest.approx(1.0)


def test_the_area_under_the_curve_of_one_class_is_zero_to_tfma(evaluated):
    """So the gates do not take TFMA's word for it."""
    assert evaluated.slices["shop=b"]["auc"] == 0
    assert evaluated.overall["auc"] == pytest.approx(11 / 12, abs=1e-3)
