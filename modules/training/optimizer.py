"""The optimiser of the settings."""

import math

import tensorflow as tf
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
# Weight decay spares variables whose own name has this; a layer's name, such as alphabet, does not count.
NOT_DECAYED = [r"(bias|gamma|beta)[^/]*(/part_\d+:\d+)?$"]


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each update: a linear warm-up from 0, then constant, cosine or exponential.

    With r the learning rate, f the final one and t from 0 to 1 after the warm-up: cosine is f + (r − f)(1 + cos πt) / 2
    (Loshchilov & Hutter 2017, equation 5), exponential r (f / r)^t.
    """

    def __init__(self, settings: Optimizer, updates: int):
        """Spreads the schedule over `updates`."""
        super().__init__()
        self._settings = settings
        self._updates = updates

    def __call__(self, step):
        """Returns the learning rate of an update, float32 scalar; `step` counts from 0."""
        settings, step = self._settings, tf.cast(step, tf.float32)
        rate, final = settings.learning_rate, settings.final_learning_rate or 0.0
        # A whole number of updates, so that the first after the warm-up has the full rate.
        rising = math.ceil(settings.warmup * self._updates)
        share = tf.clip_by_value((step - rising) / max(1, self._updates - rising), 0.0, 1.0)
        if settings.schedule == "cosine":
            value = final + (rate - final) * (1 + tf.cos(math.pi * share)) / 2
        elif settings.schedule == "exponential":
            value = rate * (final / rate) ** share
        else:
            value = tf.constant(rate)
        return value * tf.minimum(1.0, (step + 1) / (rising + 1)) if rising else value

    def get_config(self):
        """Returns the arguments, as Keras requires."""
        return {"settings": self._settings.model_dump(), "updates": self._updates}


def make_optimizer(settings: Optimizer, updates: int) -> keras.optimizers.Optimizer:
    """Returns the optimiser, its learning rate's schedule spread over `updates`."""
    constant = settings.schedule == "constant" and not settings.warmup
    options = {"use_ema": True, "ema_momentum": settings.average} if settings.average else {}
    if settings.weight_decay is not None:
        options["weight_decay"] = settings.weight_decay
    optimizer = OPTIMIZERS[settings.name](
        learning_rate=settings.learning_rate if constant else LearningRate(settings, updates),
        global_clipnorm=settings.clip_norm,
        **options,
    )
    if settings.weight_decay is not None or settings.name == "adamw":
        optimizer.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return optimizer
