"""Writes the example data from installed packages: python data/prepare.py [NAME]...

Without names it writes digits and taxi.

Nothing is downloaded. Provenance and licences: data/README.md.
"""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from stillhouse.modules.atomic import new_folder, remove_leftovers
from stillhouse.pipelines.example_data import docstrings, few_digits, packages

HERE = Path(__file__).parent


def digits(folder: Path) -> dict[str, int]:
    """Writes scikit-learn's UCI handwritten digits as folder/digits.csv: 64 pixel columns and `label`."""
    from sklearn.datasets import load_digits

    frame = load_digits(as_frame=True).frame.astype(int)
    frame.columns = [f"pixel_{i:02d}" for i in range(64)] + ["label"]
    frame.to_csv(folder / "digits.csv", index=False)
    return {"digits.csv": len(frame)}


def taxi(folder: Path) -> dict[str, int]:
    """Copies the Chicago taxi trips of the TFX wheel to folder/taxi.csv."""
    tfx = Path(find_spec("tfx").origin).parent
    path = folder / "taxi.csv"
    shutil.copyfile(tfx / "examples/chicago_taxi_pipeline/data/simple/data.csv", path)
    with path.open() as file:
        return {"taxi.csv": sum(1 for _ in file) - 1}


# Each writes into a folder and returns the examples of each file.
DATA_SETS = {
    "digits": digits,
    "few_digits": few_digits.write,
    "taxi": taxi,
    "packages": packages.write,
    "docstrings": docstrings.write,
    "questions": docstrings.write_sample,
}
DEFAULT = ("digits", "taxi")


def main(names: list[str]) -> None:
    """Writes the named data sets, DEFAULT without names, where they are not there yet."""
    unknown = set(names) - set(DATA_SETS)
    if unknown:
        sys.exit(f"data/prepare.py: unknown data set(s) {', '.join(sorted(unknown))}; known: {', '.join(DATA_SETS)}")
    for name in names or DEFAULT:
        folder = HERE / name
        if folder.exists():
            continue
        remove_leftovers(folder)
        with new_folder(folder) as unfinished:
            examples = DATA_SETS[name](Path(unfinished))
        for file, rows in examples.items():
            print(f"data/{name}/{file}: {rows} examples")


if __name__ == "__main__":
    main(sys.argv[1:])
