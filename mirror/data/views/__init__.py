"""What makes the views of a text differ before the network sees them. A view maker is chosen by ``aug=``.

One of a user's own is one class, and ``_target_: my_package.MyViews`` in a file of the group ``aug``.
"""

from mirror.data.views.base import Views
from mirror.data.views.chain import Chain
from mirror.data.views.code import Code
from mirror.data.views.crop import Crop
from mirror.data.views.cutoff import Cutoff
from mirror.data.views.deletion import Deletion
from mirror.data.views.prompt import Prompt
from mirror.data.views.repetition import Repetition
from mirror.data.views.shuffle import Shuffle
from mirror.data.views.span_mask import SpanMask
from mirror.data.views.spans import Spans

__all__ = [
    "Chain",
    "Code",
    "Crop",
    "Cutoff",
    "Deletion",
    "Prompt",
    "Repetition",
    "Shuffle",
    "SpanMask",
    "Spans",
    "Views",
]
