"""Pseudo-labels: a teacher's predictions on unlabelled examples, as a student's targets.

Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification", section 2: the student minimises
the cross-entropy on labelled examples with their labels and on unlabelled ones with the teacher's. So the target of a
labelled example is its label, as a distribution certain of it, and that of an unlabelled one the teacher's
distribution (soft) or its most probable class (hard).
"""

import numpy as np

from stillhouse.modules.errors import UserError

# Logit of a certain class, with all others zero: their softmax is below 1e-12.
CERTAIN = 30.0


def certain_logits(classes: np.ndarray, count: int) -> np.ndarray:
    """Returns logits, float32 [examples, count], whose distribution is certain of `classes`, int [examples]."""
    return CERTAIN * np.eye(count, dtype=np.float32)[classes]


def pseudo_logits(logits: np.ndarray, kind: str) -> np.ndarray:
    """Returns the targets of unlabelled examples, as logits like the teacher's, float32 [examples, classes].

    Args:
      logits: the teacher's logits.
      kind: soft: the logits unchanged; hard: certain of the most probable class.
    """
    return logits if kind == "soft" else certain_logits(logits.argmax(axis=-1), logits.shape[-1])


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """Returns the largest probability of each row of logits, float32 [examples]."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return 1.0 / shifted.sum(axis=-1)


def copies_of(
    confidence: np.ndarray, classes: np.ndarray, min_confidence: float, balance: bool, seed: int = 1
) -> np.ndarray:
    """Returns the number of copies of each unlabelled example in the targets, int64 [examples].

    Section 3.1 of the paper: examples with a confidence below a threshold are skipped. To balance, the same number is
    taken of each remaining class: of a large class the most confident, of a small one some, drawn at random, more than
    once. The paper's number is fixed, 130,000; here it is the mean, so that the total stays about the same.

    Args:
      confidence: float [examples].
      classes: the most probable class of each example, int [examples].
      min_confidence: the threshold.
      balance: whether to balance the classes.
      seed: the seed of the random draws.

    Raises:
      UserError: no example reaches the threshold.
    """
    confident = np.flatnonzero(confidence >= min_confidence)
    if not len(confident):
        highest = confidence.max() if len(confidence) else 0.0
        raise UserError(
            f"student.distillation.pseudo_labels.min_confidence: found {min_confidence:g}; expected at most "
            f"{highest:.3f} (highest confidence); lower it"
        )
    copies = np.zeros(len(confidence), np.int64)
    if not balance:
        copies[confident] = 1
        return copies
    random = np.random.default_rng(seed)
    present_classes = np.unique(classes[confident])
    count_per_class = max(1, round(len(confident) / len(present_classes)))
    for present_class in present_classes:
        own = confident[classes[confident] == present_class]
        own = own[np.argsort(-confidence[own], kind="stable")][:count_per_class]
        copies[own] = 1
        np.add.at(copies, random.choice(own, count_per_class - len(own)), 1)
    return copies
