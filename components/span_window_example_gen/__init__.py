"""ExampleGen of the newest spans together."""

from components.span_window_example_gen.component import SpanWindowExampleGen

__all__ = ["SpanWindowExampleGen"]
