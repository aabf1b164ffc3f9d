import datetime

import pytest

from stillhouse.components.parquet_example_gen.executor import row_to_example
from stillhouse.modules.errors import UserError


def feature(value):
    return row_to_example({"x": value}).features.feature["x"]


@pytest.mark.parametrize(("value", "expected"), [(0, [0]), (7, [7]), (False, [0]), ([0, 1], [0, 1])])
def test_zero_is_a_value(value, expected):
    assert list(feature(value).int64_list.value) == expected


def test_floats_strings_and_bytes():
    assert list(feature(0.0).float_list.value) == [0.0]
    assert list(feature("é").bytes_list.value) == ["é".encode()]
    assert list(feature(b"\xff").bytes_list.value) == [b"\xff"]


def test_none_is_a_missing_value():
    assert feature(None).WhichOneof("kind") is None


def test_another_type_is_named_with_its_column():
    with pytest.raises(UserError, match="column 'x': found values of type date"):
        feature(datetime.date(2026, 1, 1))


@pytest.mark.parametrize("value", [2**64 - 1, [1, -(2**63) - 1]])
def test_an_integer_beyond_64_bits_is_named_with_its_column(value):
    with pytest.raises(UserError, match="column 'x': found -?[0-9]+; expected signed 64-bit integers; write strings"):
        feature(value)
