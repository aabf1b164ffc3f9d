"""What is chained, and where it runs."""

import components  # noqa: F401  (first: it selects tf_keras before anything imports TensorFlow)
