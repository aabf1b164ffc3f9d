"""The stock Pusher, made atomic."""

from stillhouse.components.pusher.component import Pusher

__all__ = ["Pusher"]
