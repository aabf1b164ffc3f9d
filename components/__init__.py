"""TFX components of our own, where no stock one exists. One folder each; README.md lists them."""

import modules  # noqa: F401  (first: it selects tf_keras before anything imports TensorFlow)
