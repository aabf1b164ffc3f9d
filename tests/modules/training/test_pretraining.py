"""Pre-training on masked text: plain, and from a larger network, as run_fn does it."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tfx.components.trainer.fn_args_utils import FnArgs

from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.heads import MASKED
from stillhouse.modules.text.masking import POSITIONS
from stillhouse.modules.text.reserved import BEGIN, END, RESERVED
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.launch import run_fn

pytestmark = pytest.mark.soak

LENGTH, VOCABULARY, EXAMPLES = 12, 12, 256
SIZE = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": 2, "width": 16, "heads": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Texts of one word over and over, so that what is masked can be told from the rest, and a Transform's output."""
    folder = tmp_path_factory.mktemp("words")
    names = ("tokens", "segments", "matches")
    spec = {name: tf.io.FixedLenFeature([LENGTH], tf.int64) for name in names}
    spec["relevant"] = tf.io.FixedLenFeature([], tf.int64)
    metadata = tft.DatasetMetadata.from_feature_spec(spec)
    row = {name: [0] * LENGTH for name in names} | {"relevant": 0}
    with tft_beam.Context(temp_dir=str(folder / "temp")):
        _, function = ([row], metadata) | tft_beam.AnalyzeAndTransformDataset(dict)
        function | tft_beam.WriteTransformFn(str(folder / "graph"))
    chance = np.random.RandomState(0)
    for split in ("train", "eval"):
        (folder / split).mkdir()
        with tf.io.TFRecordWriter(str(folder / split / "examples.gz"), "GZIP") as writer:
            for _ in range(EXAMPLES):
                word = chance.randint(len(RESERVED), VOCABULARY)
                example = tf.train.Example()
                features = example.features.feature
                features["tokens"].int64_list.value.extend([BEGIN, *[word] * (LENGTH - 2), END])
                for name in ("segments", "matches"):
                    features[name].int64_list.value.extend([0] * LENGTH)
                if split == "train":  # that the label is missing elsewhere does not matter
                    features["relevant"].int64_list.value.append(1)
                writer.write(example.SerializeToString())
    return folder


def pretrained(data, name, base=None, **changes):
    settings = {
        "name": name,
        "role": "pretraining",
        "task": "stillhouse.modules.tasks.text",
        "label": "tokens",
        "head": MASKED,
        "builder": "build_language_model",
        "masking": {"share": 0.2, "label": "relevant"},
        "hyperparameters": SIZE,
        "epochs": 15,
        "batch_size": 32,
        "seed": 1,
        "optimizer": {"name": "adam", "learning_rate": 0.005, "schedule": "constant"},
        "strategy": {"name": "one_device"},
    }
    run_fn(
        FnArgs(
            train_files=[str(data / "train" / "*")],
            eval_files=[str(data / "eval" / "*")],
            transform_graph_path=str(data / "graph"),
            serving_model_dir=str(data / name / "model"),
            model_run_dir=str(data / name / "run"),
            base_model=base,
            custom_config=TrainingConfig.model_validate(settings | changes).model_dump(mode="json"),
        )
    )
    return str(data / name / "model")


@pytest.fixture(scope="module")
def large(data):
    return pretrained(data, "large", hidden_layers=["states"])


def test_a_network_learns_to_tell_what_was_masked(large):
    card = read_card(large)
    assert card["history"]["loss"][0] > card["history"]["loss"][-1]
    # A word in seven by chance: the loss is log 7 = 1.95 nats.
    assert card["held_out"]["loss"] < 0.5
    assert card["held_out"]["accuracy"] > 0.9
    signatures = tf.saved_model.load(large).signatures
    none = tf.zeros([2, LENGTH], tf.int64)
    given = {"tokens": none + 7, "segments": none, "matches": none, POSITIONS: tf.constant([[1, 2, 3]] * 2, tf.int64)}
    assert signatures["logits"](**given)["logits"].shape == (2, 3, VOCABULARY)
    assert signatures["hidden_states"](**given)["states"].shape == (2, LENGTH, 16)


def test_a_smaller_one_starts_at_some_of_its_layers_and_learns_from_it(data, large):
    hint = {"teacher": 1, "teacher_layer": "states", "student_layer": "states", "kind": "cosine", "weight": 0.15}
    learning = {
        "objective": "kl_divergence",
        "temperature": 2.0,
        "alpha": 0.7,
        "ensemble": {"weights": [1.0]},
        "hints": [hint],
    }
    smaller = SIZE | {"layers": 1, "segments": False}
    start = {"pretraining": "large", "layers": {"layer_0": "layer_1"}}
    more = {"distillation": learning, "teachers": [large], "hyperparameters": smaller, "epochs": 3}
    found = read_card(pretrained(data, "small", base=large, start=start, **more))["history"]
    assert found["soft_loss"][-1] < found["soft_loss"][0]
    assert found["loss"][0] > 0.3 * found["hard_loss"][0] + 0.7 * found["soft_loss"][0]  # and the hint
