"""Teachers that a student learns from: exported SavedModels, asked for logits."""

import tensorflow as tf

from modules.distillation.objectives import class_logits
from modules.errors import UserError

LOGITS_SIGNATURE = "logits"


class Teacher:
    """A SavedModel on transformed features; calling it gives its logits.

    Load it inside the scope of the strategy that it will run under.
    """

    def __init__(self, path: str, name: str):
        """Loads the SavedModel at `path`.

        Raises:
          UserError: there is no SavedModel, or it has no signature `logits` over transformed features.
        """
        self.name = name
        try:
            self.saved_model = tf.saved_model.load(path)
        except OSError as error:
            raise UserError(f"{name}: no SavedModel in {path}: {error}") from error
        if LOGITS_SIGNATURE not in self.saved_model.signatures:
            raise UserError(
                f"{name}: the SavedModel in {path} has no signature {LOGITS_SIGNATURE!r} (transformed features to "
                f"logits); it has: {', '.join(sorted(self.saved_model.signatures)) or 'none'}"
            )
        self._signature = self.saved_model.signatures[LOGITS_SIGNATURE]
        self._inputs = list(self._signature.structured_input_signature[1])

    @property
    def classes(self) -> int:
        """Number of classes that it tells apart."""
        return max(2, self._signature.structured_outputs["logits"].shape[-1])

    def __call__(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns logits, float32 [batch, classes], of transformed features {name: [batch, ...]}."""
        return class_logits(self._signature(**{name: features[name] for name in self._inputs})["logits"])
