"""How the weights of an encoder move while it is tuned: all of them, some of them, or low-rank ones beside them."""

from mirror.adapt.base import Adaptation, adapted

__all__ = ["Adaptation", "adapted"]
