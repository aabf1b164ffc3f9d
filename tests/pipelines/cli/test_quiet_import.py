"""What TensorFlow says while it is imported, by a package of its name."""

import os
import subprocess
import sys

import pytest

CODE = "from stillhouse.pipelines.cli.quiet_import import import_tensorflow; import_tensorflow()"
CHATTER = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1795883168.358523   29588 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will "
    "not be used.\n"
)
FAULT = "E0000 00:00:1795883168.358524   29588 cuda_executor.cc:1] failed call to cuInit\n"


@pytest.mark.parametrize("end", ["", "raise ImportError('no libcuda')"])
def test_of_what_an_import_writes_only_the_known_chatter_is_left_out(tmp_path, end):
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nos.write(2, {(CHATTER + FAULT + CHATTER)!r}.encode())\n{end}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.startswith(FAULT)
    assert "cudart_stub" not in done.stderr
    assert done.returncode == (1 if end else 0)
    assert ("ImportError: no libcuda" in done.stderr) == bool(end)
