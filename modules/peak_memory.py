"""The most memory that a process has had: its peak resident set, as Linux counts it."""

from contextlib import suppress
from pathlib import Path


def peak_mb(process: int | str = "self") -> float | None:
    """Returns the peak resident set of a process in MB (10⁶ bytes); None if it is gone, or there is no /proc."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 / 1e6 if found else None  # a zombie has none


def forget_peak(process: int | str = "self") -> None:
    """Lets the peak of a process begin anew, at what it has now; where the system does not, it goes on as it is."""
    with suppress(OSError):
        Path(f"/proc/{process}/clear_refs").write_text("5")  # proc(5)
