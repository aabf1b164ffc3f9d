"""UCI handwritten digits of which few have a label, for Noisy Student."""

from pathlib import Path

import numpy as np

PIXELS = [f"pixel_{number:02d}" for number in range(64)]
EVAL, VALIDATION = 400, 200  # digits
LABELLED_PER_CLASS = 10
SPLIT_SEED = 1  # of what is for evaluation and validation; those are the same whatever is labelled


def split_of_digits(labels: np.ndarray, seed: int = 1, per_class: int = LABELLED_PER_CLASS) -> dict[str, np.ndarray]:
    """Returns the rows of the splits eval, validation, labelled and unlabelled.

    Args:
      labels: int [digits].
      seed: of the choice of the labelled ones.
      per_class: labelled digits of each class.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    pool = np.random.default_rng(seed).permutation(order[EVAL + VALIDATION :])
    labelled = np.concatenate([pool[labels[pool] == digit][:per_class] for digit in np.unique(labels)])
    return {
        "eval": order[:EVAL],
        "validation": order[EVAL : EVAL + VALIDATION],
        "labelled": labelled,
        "unlabelled": pool[~np.isin(pool, labelled)],
    }


def write(folder: Path) -> dict[str, int]:
    """Writes labelled/train.csv, labelled/eval.csv and unlabelled/unlabelled.csv; returns their rows.

    The validation split, which chose the settings, is in none of them.
    """
    from sklearn.datasets import load_digits

    frame = load_digits(as_frame=True).frame.astype(int)
    frame.columns = [*PIXELS, "label"]
    rows = split_of_digits(frame["label"].to_numpy())
    files = {"labelled/train.csv": "labelled", "labelled/eval.csv": "eval", "unlabelled/unlabelled.csv": "unlabelled"}
    written = {}
    for name, split in files.items():
        part = frame.iloc[rows[split]]
        if split == "unlabelled":
            part = part[PIXELS]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        part.to_csv(folder / name, index=False)
        written[name] = len(part)
    return written
