import numpy as np
import pytest

from stillhouse.modules.ingestion.in_memory import narrowed


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([0, 255]), np.uint8),
        (np.array([-1, 255]), np.int16),
        (np.array([0, 70_000]), np.int32),
        (np.array([0, 2**40]), np.int64),
        (np.array([0.0, 16.0, 255.0], np.float32), np.uint8),
        (np.array([0.0, 0.5], np.float32), np.float32),
        (np.array([0.0, 256.0], np.float32), np.float32),
        (np.array([-0.0, 1.0], np.float32), np.float32),
        (np.array([np.nan, 1.0], np.float32), np.float32),
        (np.array([b"a"], object), np.object_),
        (np.zeros([0], np.int64), np.int64),
    ],
)
def test_numbers_are_kept_in_the_smallest_type_that_holds_them_without_loss(values, kind):
    kept = narrowed(values)
    assert kept.dtype == kind
    np.testing.assert_array_equal(kept.astype(values.dtype), values)
