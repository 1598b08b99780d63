#!/usr/bin/env python3
"""Check the vectors with Python's msgpack, and show how to read a stream.

A reader in another language is tested in the same way: put it where read()
stands.
"""
import glob
import json
import os
import sys

import msgpack

MAX_FRAME = 1 << 20
MAX_VALUE = MAX_FRAME + (64 << 10)
MAX_DEPTH = 32


def depth(v):
    if isinstance(v, dict):
        v = [*v.keys(), *v.values()]
    if isinstance(v, list):
        return (1 + max(map(depth, v))) if v else 0
    return 0


def check(v):
    """Say whether a decoded value may stand in a stream."""
    if isinstance(v, dict):
        if v.get("format") != "frames":
            return True
        return v.get("version") == 1 and v.get("link") in (None, "ethernet", "ip")
    if not isinstance(v, list) or len(v) < 3 or depth(v) > MAX_DEPTH:
        return False
    time, offload, frame = v[:3]
    return (type(time) is int and time >= 0
            and (offload is None or type(offload) is bytes and len(offload) == 10)
            and type(frame) is bytes and len(frame) <= MAX_FRAME)


def read(stream):
    """Return the values with their offsets; where the error is, or None; and
    whether the input ended there."""
    values, offset = [], 0
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_bin_len=MAX_FRAME,
                                max_str_len=MAX_VALUE, max_array_len=MAX_VALUE,
                                max_map_len=MAX_VALUE // 2, max_buffer_size=MAX_VALUE)
    unpacker.feed(stream)
    while True:
        try:
            v = unpacker.unpack()
        except msgpack.OutOfData:
            ended = offset < len(stream)
            return values, offset if ended else None, ended
        except Exception:  # the module has no one class for bytes that are wrong
            return values, offset, False
        if not check(v):
            return values, offset, False
        values.append((offset, v))
        offset = unpacker.tell()


def main():
    bad = 0
    names = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "*.frames")))
    for name in names:
        with open(name, "rb") as f:
            stream = f.read()
        with open(name[:-len("frames")] + "json") as f:
            meaning = json.load(f)
        want = []
        for v in meaning["values"]:
            if "annotation" in v:
                want.append((v["offset"], v["annotation"]))
                continue
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
            unpacker.feed(bytes.fromhex(v.get("extra", "")))
            extra = list(unpacker)
            assert len(extra) == v.get("extras", 0), name
            offload = v["offload"] and bytes.fromhex(v["offload"])
            want.append((v["offset"], [int(v["time"]), offload, bytes.fromhex(v["frame"]), *extra]))
        error = meaning.get("error", {"offset": None, "truncated": False})
        got, offset, ended = read(stream)
        # This module refuses a length over its limit once the bytes are there.
        # Until then, and in these files they never are, the value counts as cut.
        late = ended and os.path.basename(name).startswith("bad-length-")
        if got != want or offset != error["offset"] or ended != error["truncated"] and not late:
            print(f"{name}:\n got  {got}, error at {offset}, truncated: {ended}\n want {want}, {error}")
            bad += 1
    print(f"{len(names)} vectors, {bad} differ")
    return bad > 0 or not names


if __name__ == "__main__":
    sys.exit(main())
