"""Pseudo-labels: what a teacher says about examples without labels, as a student's targets.

Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification", section 2: the student minimises
the cross-entropy on labelled examples with their labels and on unlabelled ones with the teacher's. So the target of a
labelled example is its label, as a distribution that is sure of it, and that of an unlabelled one the teacher's
distribution (soft) or its most probable class (hard).
"""

import numpy as np

from stillhouse.modules.errors import UserError

# Logit of a class that is certain, beside zeros: the softmax of the others is below 1e-12.
CERTAIN = 30.0


def certain_logits(classes: np.ndarray, count: int) -> np.ndarray:
    """Returns logits, float32 [examples, count], whose distribution is sure of `classes`, int [examples]."""
    return CERTAIN * np.eye(count, dtype=np.float32)[classes]


def pseudo_logits(logits: np.ndarray, kind: str) -> np.ndarray:
    """Returns the targets of unlabelled examples, as logits like the teacher's, float32 [examples, classes].

    Args:
      logits: the teacher's.
      kind: soft, or hard: sure of the most probable class.
    """
    return logits if kind == "soft" else certain_logits(logits.argmax(axis=-1), logits.shape[-1])


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """Returns the largest probability of each row of logits, float32 [examples]."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return 1.0 / shifted.sum(axis=-1)


def copies_of(confidence: np.ndarray, classes: np.ndarray, least: float, balance: bool, seed: int = 1) -> np.ndarray:
    """Returns how often each unlabelled example is taken, int64 [examples].

    Section 3.1 of the paper: examples whose confidence is below a threshold are left out. To balance, the same number
    is taken of each class that is left: of a large class the most confident, of a small one some, drawn at random,
    more than once. The paper's number is fixed, 130,000; here it is the mean, so that the total stays about the same.

    Args:
      confidence: float [examples].
      classes: the most probable ones, int [examples].
      least: confidence that is asked.
      balance: whether to balance.
      seed: of the drawing.

    Raises:
      UserError: no example is left.
    """
    kept = np.flatnonzero(confidence >= least)
    if not len(kept):
        highest = confidence.max() if len(confidence) else 0.0
        raise UserError(
            f"student.distillation.pseudo_labels.min_confidence: the teacher is sure enough ({least:g}) of no example; "
            f"its highest confidence is {highest:.3f}"
        )
    copies = np.zeros(len(confidence), np.int64)
    if not balance:
        copies[kept] = 1
        return copies
    chance = np.random.default_rng(seed)
    present = np.unique(classes[kept])
    wanted = max(1, round(len(kept) / len(present)))
    for one in present:
        own = kept[classes[kept] == one]
        own = own[np.argsort(-confidence[own], kind="stable")][:wanted]
        copies[own] = 1
        np.add.at(copies, chance.choice(own, wanted - len(own)), 1)
    return copies
