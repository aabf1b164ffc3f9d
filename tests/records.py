"""Files of transformed examples as tests make them."""

import tensorflow as tf

SPEC = {"x": tf.io.FixedLenFeature([2], tf.float32), "label": tf.io.FixedLenFeature([], tf.int64)}


def write(path, numbers, labelled=True):
    """Writes examples to a gzip'd TFRecord file: x is [i, -i] and the label i, for each i in `numbers`."""
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for i in numbers:
            features = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=[i, -i]))}
            if labelled:
                features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[i]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
