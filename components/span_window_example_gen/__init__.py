"""ExampleGen of the newest spans together."""

from stillhouse.components.span_window_example_gen.component import SpanWindowExampleGen

__all__ = ["SpanWindowExampleGen"]
