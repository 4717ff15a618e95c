"""What a keyframe states (size, refresh), without decoding it; for decord's codecs."""

from __future__ import annotations

from collections.abc import Iterator

_SPS, _IDR, _SLICES = 7, 5, (1, 5)
_START = b"\x00\x00\x01"
# Far enough for parameter sets, which come first.
_LOOKED_AT = 4096


def stated_size(codec: str, extradata: bytes, packet: memoryview) -> bytes:
    """Returns bytes of a keyframe that differ from those of another where the sizes differ.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: Of the stream.
        packet: The keyframe.

    Returns:
        Empty where it states none.
    """
    data = bytes(packet[:_LOOKED_AT])
    if codec == "h264":
        return b"".join(_sequence_parameters(data, extradata))
    if codec == "vp8":
        return data[6:10]
    if codec == "vp9":
        return (int.from_bytes(data[4:9], "big") >> 4 & 0xFFFFFFFF).to_bytes(4, "big")
    if codec == "mpeg4":
        found = [part for part in data.split(_START)[1:] if part and 0x20 <= part[0] <= 0x2F]
        return found[0] if found else b""
    return b""


def header_size(codec: str, extradata: bytes) -> bytes:
    """Returns what `stated_size` would of the header of a stream; empty where it states none."""
    if codec == "h264" and extradata[:1] == b"\x01":
        return extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]
    return b""


def lacks_refresh(codec: str, extradata: bytes, packet: memoryview) -> bool:
    """Tells whether frames after a keyframe may need those before: in H.264 one without IDR."""
    if codec != "h264":
        return False
    for unit in _units(bytes(packet[:_LOOKED_AT]), extradata):
        if unit and unit[0] & 31 in _SLICES:
            return unit[0] & 31 != _IDR
    return False


def _sequence_parameters(data: bytes, extradata: bytes) -> Iterator[bytes]:
    for unit in _units(data, extradata):
        kind = unit[0] & 31 if unit else 0
        if kind in _SLICES:
            return
        if kind == _SPS:
            yield unit


def _units(data: bytes, extradata: bytes) -> Iterator[bytes]:
    if extradata[:1] != b"\x01" or data.startswith((_START, b"\x00" + _START)):
        yield from (unit.rstrip(b"\x00") for unit in data.split(_START)[1:])
        return
    width, place = (extradata[4] & 3) + 1, 0
    while place + width < len(data):
        length = int.from_bytes(data[place : place + width], "big")
        yield data[place + width : place + width + length]
        place += width + length
