"""What distillation gains and costs; README.md has the tables."""

import stillhouse  # noqa: F401  (first: it selects tf_keras before anything imports TensorFlow)
