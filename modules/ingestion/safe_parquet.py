"""Opens Parquet files without running what is in them.

pyarrow before 14.0.1 unpickles the metadata of a Python extension type when it reads a file's schema, which runs any
code (CVE-2023-47248). pyarrow_hotfix forbids that in the whole process, so each module that has Parquet files read, by
itself or by Beam, imports this one.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow_hotfix  # noqa: F401

from stillhouse.modules.errors import UserError

PYTHON_TYPE = "arrow.py_extension_type"


def open_parquet(file: Any, name: str) -> pq.ParquetFile:
    """Returns an opened Parquet file, whose schema has been read.

    Args:
      file: path, or an Arrow file.
      name: for messages.

    Raises:
      UserError: a column has a Python extension type.
      pyarrow.ArrowException, OSError: not a Parquet file.
    """
    try:
        opened = pq.ParquetFile(file)
        _ = opened.schema_arrow
    except RuntimeError as error:
        if isinstance(error, pa.ArrowException) or PYTHON_TYPE not in str(error):
            raise
        raise UserError(
            f"{name}: a column has a Python extension type, which can run code when it is read (CVE-2023-47248); write "
            "the column in one of Arrow's own types"
        ) from error
    return opened
