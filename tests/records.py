"""Files of transformed examples as tests make them."""

import tensorflow as tf

SPEC = {"x": tf.io.FixedLenFeature([2], tf.float32), "label": tf.io.FixedLenFeature([], tf.int64)}


def example(i, labelled=True, **more):
    """Returns a serialized example: x is [i, -i] and the label i; `more` are other features, lists of floats."""
    features = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
        for name, values in ({"x": [i, -i]} | more).items()
    }
    if labelled:
        features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[i]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def write(path, numbers, labelled=True, compression="GZIP"):
    """Writes the example of each number to a TFRecord file and returns its name."""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for i in numbers:
            writer.write(example(i, labelled))
    return str(path)
