"""The optimiser of the settings."""

import tf_keras as keras

from stillhouse.modules.settings import Optimizer

# By class: keras.optimizers.get would give the legacy ones.
OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


def make_optimizer(settings: Optimizer, updates: int) -> keras.optimizers.Optimizer:
    """Returns the optimiser, its learning rate's schedule spread over `updates`."""
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=updates)
    return OPTIMIZERS[settings.name](learning_rate=rate)
