"""Sealed segments: finished stretches of runs as ready frames, so that a replay is a handful of blob reads.

Knows labels and bytes, not what an event means. The rows of the log are the truth: losing a segment, or the
whole file of them, loses nothing but time.
"""

from service.segments.segment import Segment
from service.segments.segments import Segments

__all__ = ["Segment", "Segments"]
