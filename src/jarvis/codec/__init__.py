"""Values to bytes and back, exactly.

`flatten` turns a value into plain JSON types (tagging what JSON lacks) or refuses it, `encode` and
`decode` add the bytes; `jarvis.codec.compression` makes large ones smaller.
"""

from jarvis.codec.instants import InvalidMomentError, format_moment, instant_of, parse_moment
from jarvis.codec.values import MAX_DEPTH, MAX_VALUE_BYTES, Prepared, check_extent, decode, encode, flatten, revive

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUE_BYTES",
    "InvalidMomentError",
    "Prepared",
    "check_extent",
    "decode",
    "encode",
    "flatten",
    "format_moment",
    "instant_of",
    "parse_moment",
    "revive",
]
