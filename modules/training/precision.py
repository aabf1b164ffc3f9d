"""Mixed precision: layers compute in 16 bits, weights and losses stay float32.

Micikevicius et al. 2018, "Mixed Precision Training": with float16 the loss is scaled up, so that small gradients do not
become 0, and an update with infinite gradients is skipped. bfloat16 has the range of float32 and does
without.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import tf_keras as keras

FLOAT16 = "mixed_float16"


@contextmanager
def layers_compute_in(precision: str) -> Iterator[None]:
    """Lets the layers that are built in here compute in `precision`: float32, mixed_bfloat16 or mixed_float16."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def with_loss_scale(optimizer: keras.optimizers.Optimizer, precision: str) -> keras.optimizers.Optimizer:
    """Returns the optimiser, with a loss scale that follows the gradients where `precision` needs one."""
    return keras.mixed_precision.LossScaleOptimizer(optimizer) if precision == FLOAT16 else optimizer


def scales_loss(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether the optimiser expects the gradients of a scaled loss."""
    return isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
