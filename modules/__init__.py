"""What runs inside components: ingestion, training, distillation, export.

Importing this package selects tf_keras (Keras 2) for everything that says `tf.keras`, TFX and tf.Transform
included. It has to happen before TensorFlow is imported, and every other package of stillhouse imports this
one first, so here is the one place. Why Keras 2: docs/decisions.md.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
