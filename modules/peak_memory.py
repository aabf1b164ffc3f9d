"""Measures the maximum memory of a process: its peak resident set, as Linux counts it."""

from contextlib import suppress
from pathlib import Path


def peak_mb(process: int | str = "self") -> float | None:
    """Returns the peak resident set of a process in MB (10⁶ bytes); None if the process has ended, or without /proc."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) * 1024 / 1e6 if peaks else None  # a zombie has none


def forget_peak(process: int | str = "self") -> None:
    """Resets the peak of a process to its current memory; has no effect where the system does not support it."""
    with suppress(OSError):
        Path(f"/proc/{process}/clear_refs").write_text("5")  # proc(5)
