"""stillhouse: distil large networks into a small one, and ship it only if it is good enough.

Importing any part of stillhouse selects tf_keras (Keras 2) for everything that says `tf.keras`, TFX and tf.Transform
included. It has to happen before TensorFlow is imported, and every module of stillhouse is imported through this
package, so here is the one place. Why Keras 2: docs/decisions.md.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

__version__ = "0.1.0"
