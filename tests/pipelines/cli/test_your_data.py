"""The project of docs/your_data.md, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.local.check import check_settings

PAGE = (Path(__file__).parents[3] / "docs" / "your_data.md").read_text()


def test_the_project_by_hand_fits_together(tmp_path, monkeypatch):
    data, task, settings = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("wine_task.py").write_text(task)
    Path("wine.yaml").write_text(settings)
    subprocess.run([sys.executable, "-c", data], check=True, timeout=60)
    assert len(Path("data/wine/wine.csv").read_text().splitlines()) == 179
    check_settings(load_settings(Path("wine.yaml")))
