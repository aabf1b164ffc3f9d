"""Makes control characters visible, so that text from data, names and paths cannot steer a terminal or a page.

A terminal obeys ESC and the other control characters (C0, C1), and bidirectional overrides show a text in another
order than it has. Half a surrogate pair, as in a path that is not UTF-8, cannot be printed at all.
"""

import re
from typing import Any

# All of C0 and C1 but tab and newline; line and paragraph separators; bidirectional marks; surrogates.
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Returns the text with \x1b for ESC, \u202e for a bidirectional override, and the like."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def visible_data(data: Any) -> Any:
    """Returns JSON-able data with all its strings made visible, keys too."""
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, dict):
        return {visible_data(key): visible_data(value) for key, value in data.items()}
    return [visible_data(item) for item in data] if isinstance(data, list) else data


def visible_json(text: str) -> str:
    r"""Returns JSON with \u.... for its control characters; it says the same as before."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
