"""Chicago taxi trips: will the tip exceed 20 % of the fare? Two classes.

The label column is the raw `tips`; preprocessing_fn converts it to the class id. Slices, on raw columns, are not
affected.
"""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.tasks.columns import dense

LABEL = "tips"
TIPPED_ABOVE = 0.2  # of the fare

NUMERIC = ("trip_miles", "fare", "trip_seconds")
COORDINATES = ("pickup_latitude", "pickup_longitude", "dropoff_latitude", "dropoff_longitude")
COORDINATE_BUCKETS = 10
CYCLES = {"trip_start_hour": 24, "trip_start_day": 8, "trip_start_month": 13}
VOCABULARIES = {"payment_type": 10, "company": 100}
OUT_OF_VOCABULARY = 10
AREAS = ("pickup_community_area", "dropoff_community_area")
AREA_COUNT = 78  # Chicago's 77, and 0 for unknown

BUCKETS = (
    dict.fromkeys(COORDINATES, COORDINATE_BUCKETS + 1)
    | CYCLES
    | {name: size + OUT_OF_VOCABULARY for name, size in VOCABULARIES.items()}
    | dict.fromkeys(AREAS, AREA_COUNT)
)


def preprocessing_fn(inputs):
    """Scales numbers, buckets coordinates, applies vocabularies; computes the class id from tips and fare."""
    outputs = {}
    for name in NUMERIC:
        outputs[name] = tft.scale_to_z_score(tf.math.log1p(tf.cast(dense(inputs[name], 0), tf.float32)))
    for name in COORDINATES:
        coordinate = dense(inputs[name], float("nan"))
        present = tf.math.is_finite(coordinate)
        bucket = tft.bucketize(tf.where(present, coordinate, tf.zeros_like(coordinate)), COORDINATE_BUCKETS)
        outputs[name] = tf.where(present, bucket, tf.fill(tf.shape(bucket), tf.cast(COORDINATE_BUCKETS, tf.int64)))
    for name, size in CYCLES.items():
        outputs[name] = tf.clip_by_value(tf.cast(dense(inputs[name], 0), tf.int64), 0, size - 1)
    for name, size in VOCABULARIES.items():
        outputs[name] = tft.compute_and_apply_vocabulary(
            dense(inputs[name], ""), top_k=size, num_oov_buckets=OUT_OF_VOCABULARY, vocab_filename=name
        )
    for name in AREAS:
        area = tf.cast(dense(inputs[name], 0), tf.int64)
        outputs[name] = tf.where((area >= 0) & (area < AREA_COUNT), area, tf.zeros_like(area))
    fare = tf.cast(dense(inputs["fare"], 0), tf.float32)
    tips = tf.cast(dense(inputs[LABEL], 0), tf.float32)
    outputs[LABEL] = tf.cast(tips > TIPPED_ABOVE * fare, tf.int64)
    return outputs


def _network(embedding: int, layers: Sequence[int], dropout: float) -> keras.Model:
    numeric = [keras.Input([1], name=name) for name in NUMERIC]
    categorical = [keras.Input([1], name=name, dtype="int64") for name in BUCKETS]
    embedded = [
        keras.layers.Flatten()(keras.layers.Embedding(size, embedding)(column))
        for size, column in zip(BUCKETS.values(), categorical, strict=True)
    ]
    hidden = keras.layers.Concatenate()(numeric + embedded)
    for units in layers:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        hidden = keras.layers.Dropout(dropout)(hidden)
    return keras.Model(numeric + categorical, keras.layers.Dense(1)(hidden))


def build_teacher(embedding: int = 8, layers: tuple[int, ...] = (256, 128, 64), dropout: float = 0.3) -> keras.Model:
    """Returns a deep net on embedded categories and scaled numbers; one logit."""
    return _network(embedding, layers, dropout)


def build_student(embedding: int = 1, layers: tuple[int, ...] = (8,)) -> keras.Model:
    """Returns a tiny net on the same inputs: one number per category and a single narrow layer."""
    return _network(embedding, layers, dropout=0.0)
