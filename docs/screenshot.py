"""Takes the README's picture of a report: python docs/screenshot.py runs/digits docs/report.png

Wants Chromium (Debian's package chromium). Paths below the current folder are shown relative to it.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import typer

from stillhouse.components.report.page import DETAILS, render

WIDTH, HEIGHT = 1280, 1180
# Without these Chromium asks the network for things of its own.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def main(run: Path, picture: Path) -> None:
    """Renders the page of a run's folder anew and takes its picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not on the PATH; on Debian: apt install chromium")
    (details,) = run.glob(f"artifacts/Report/comparison/*/{DETAILS}")
    told = [path.read_text().replace(f"{Path.cwd()}/", "") for path in (run / "comparison.json", details)]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        page.write_text(render(*map(json.loads, told)))
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *QUIET]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run([*command, f"--screenshot={picture.absolute()}", page.as_uri()], check=True, timeout=60)


if __name__ == "__main__":
    typer.run(main)
