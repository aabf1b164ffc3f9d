"""Writes the example data from installed packages: python data/prepare.py [digits] [taxi].

Nothing is downloaded. Provenance and licences: data/README.md.
"""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent


def digits(folder: Path) -> Path:
    """Writes scikit-learn's UCI handwritten digits as folder/digits.csv: 64 pixel columns and `label`."""
    from sklearn.datasets import load_digits

    frame = load_digits(as_frame=True).frame.astype(int)
    frame.columns = [f"pixel_{i:02d}" for i in range(64)] + ["label"]
    path = folder / "digits.csv"
    frame.to_csv(path, index=False)
    return path


def taxi(folder: Path) -> Path:
    """Copies the Chicago taxi trips of the TFX wheel to folder/taxi.csv."""
    tfx = Path(find_spec("tfx").origin).parent
    path = folder / "taxi.csv"
    shutil.copyfile(tfx / "examples/chicago_taxi_pipeline/data/simple/data.csv", path)
    return path


DATA_SETS = {"digits": digits, "taxi": taxi}


def main(names: list[str]) -> None:
    """Writes the named data sets, all of them by default, where they are not there yet."""
    unknown = set(names) - set(DATA_SETS)
    if unknown:
        sys.exit(f"data/prepare.py: unknown data set(s) {', '.join(sorted(unknown))}; known: {', '.join(DATA_SETS)}")
    for name in names or DATA_SETS:
        folder = HERE / name
        if (folder / f"{name}.csv").exists():
            continue
        # Written aside and renamed, so that an interrupted call leaves no half a data set.
        unfinished = HERE / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        written = DATA_SETS[name](unfinished)
        rows = sum(1 for _ in written.open()) - 1
        unfinished.rename(folder)
        print(f"data/{name}/{written.name}: {rows} examples")


if __name__ == "__main__":
    main(sys.argv[1:])
