import re
import time

import pytest
import tensorflow as tf

from stillhouse.modules.ingestion.waiting import clocked, verdict
from stillhouse.modules.settings import Ingestion

SLEEP = 0.02


def sleepy(number):
    time.sleep(SLEEP)
    return number


def test_waiting_for_a_slow_input_is_measured_and_only_that():
    slow = (
        tf.data.Dataset.range(12).repeat().map(lambda i: tf.ensure_shape(tf.numpy_function(sleepy, [i], tf.int64), []))
    )
    waited = [float(seconds) for _, seconds in clocked(slow).take(12)]
    assert len(waited) == 12
    assert min(waited) >= SLEEP
    given = []
    for number, seconds in clocked(tf.data.Dataset.range(12).repeat().prefetch(12)).take(12):
        time.sleep(SLEEP)  # a slow consumer does not wait
        given.append(float(seconds))
        assert int(number) == len(given) - 1
    assert sum(given) < SLEEP * 12 / 2


@pytest.mark.parametrize(
    ("shares", "cache", "augments", "line"),
    [
        ([0.9, 0.05, 0.01], "memory", False, "3% of the step time is waiting for input"),
        ([0.1, 0.5, 0.6], "none", False, "55% .* input-bound; set ingestion.cache: memory, or disk"),
        ([0.5], "disk", False, "50% .* input-bound; set ingestion.cache: memory if the data fits .*"),
        ([0.5], "memory", True, "50% .* input-bound by augment; make it cheaper, or set ingestion.service_workers"),
        ([0.5], "memory", False, "50% .* input-bound; a larger batch_size .*"),
    ],
)
def test_the_verdict_says_how_much_and_what_to_change(shares, cache, augments, line):
    assert re.fullmatch(f"Student: {line}", verdict("Student", shares, Ingestion(cache=cache), augments))
