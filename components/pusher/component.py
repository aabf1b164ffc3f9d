"""The stock Pusher with an executor whose versions appear at once, or not at all."""

from tfx.components import Pusher as StockPusher
from tfx.dsl.components.base import executor_spec

from components.pusher.executor import Executor


class Pusher(StockPusher):
    """Pushes into push_destination/VERSION by a rename."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
