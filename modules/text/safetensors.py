"""Reads a file of weights in the format safetensors: its length and a JSON header, then the tensors' bytes.

Format: https://github.com/huggingface/safetensors#format. It holds data alone, no code. Reading it takes fewer lines
than the package of that name would take in requirements/.
"""

import json
import math
from pathlib import Path

import numpy as np

from stillhouse.modules.errors import UserError

LENGTH_BYTES = 8  # of the header's length, little-endian
MAX_HEADER = 100_000_000  # bytes, as in the format's own reader
# Floating-point types that NumPy reads; bfloat16 is read as the upper half of a float32.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Returns {name: float32 array} of the floating-point tensors of a file.

    Raises:
      UserError: the file is not in this format, or is cut off.
    """
    data = path.read_bytes()
    try:
        length = int.from_bytes(data[:LENGTH_BYTES], "little")
        if not 0 < length <= min(MAX_HEADER, len(data) - LENGTH_BYTES):
            raise ValueError(f"found a header of {length} bytes in a file of {len(data)} bytes")
        header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length])
        header.pop("__metadata__", None)
        body = memoryview(data)[LENGTH_BYTES + length :]
        return {name: _tensor(entry, body) for name, entry in header.items() if entry["dtype"] in TYPES}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: found no intact safetensors file ({error}); copy or install it again") from error


def _tensor(entry: dict, body: memoryview) -> np.ndarray:
    begin, end = entry["data_offsets"]
    stored, shape = np.dtype(TYPES[entry["dtype"]]), entry["shape"]
    if not 0 <= begin <= end <= len(body) or end - begin != stored.itemsize * math.prod(shape):
        raise ValueError(f"found the offsets {begin} to {end} for the shape {shape}, with {len(body)} bytes of tensors")
    values = np.frombuffer(body[begin:end], stored)
    if entry["dtype"] == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape).astype(np.float32)
