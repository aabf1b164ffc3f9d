"""Raw columns in Transform."""

import tensorflow as tf


def dense(column, default):
    """Returns a [batch] tensor of a column that may be missing in some rows."""
    if isinstance(column, tf.sparse.SparseTensor):
        rows = tf.SparseTensor(column.indices, column.values, [column.dense_shape[0], 1])
        column = tf.sparse.to_dense(rows, default_value=default)
    return tf.reshape(column, [-1])
