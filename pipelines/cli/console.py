"""The console on which every command prints: control characters of data, names and paths are shown, not obeyed."""

import rich.console
from rich.text import Text

from stillhouse.modules.visible import visible


class Console(rich.console.Console):
    """rich's console; every string that it prints, in cells of tables too, comes through `render_str`."""

    def render_str(self, text: str, **options) -> Text:
        """Returns the string as rich's text, with its control characters made visible."""
        return super().render_str(visible(text), **options)
