#!/usr/bin/python3
"""A stage in Python: drops one protocol, and passes on the rest as it came.

    tunread tap0 | stage.py icmp | tunwrite tap1

usage: stage.py PROTOCOL < stream > stream

PROTOCOL is arp, ip, ip6, icmp, tcp, udp or a number: an IP protocol up to 255
(47), an EtherType above (0x88cc). VLAN tags and IPv6 extension headers may stand
before it. icmp is that of IPv4 and of IPv6, without neighbour discovery: no IPv6
lives without that.

Needs Debian's python3-msgpack.
"""
import os
import select
import signal
import sys

import msgpack

IP, IP6 = 0x0800, 0x86dd
TAGS = (0x8100, 0x88a8)
HOP_BY_HOP, ROUTING, FRAGMENT, ICMP6, OPTIONS = 0, 43, 44, 58, 60
NAMES = {"arp": {0x0806}, "ip": {IP}, "ip6": {IP6}, "icmp": {1, ICMP6}, "tcp": {6}, "udp": {17}}
NEIGHBOUR_DISCOVERY = range(133, 138)

MAX_FRAME = 1 << 20
MAX_VALUE = MAX_FRAME + (64 << 10)
READ = 256 << 10


def fail(status, message):
    print(f"stage.py: {message}", file=sys.stderr)
    sys.exit(status)


def drops(frame, link, unwanted):
    """Say whether a frame is of an unwanted protocol."""
    try:
        if link == "ip":
            at, kind = 0, IP6 if frame[0] >> 4 == 6 else IP
        else:
            at, kind = 14, frame[12] << 8 | frame[13]
            while kind in TAGS:
                at, kind = at + 4, frame[at + 2] << 8 | frame[at + 3]
        if kind == IP:
            protocol = frame[at + 9]
        elif kind == IP6:
            protocol, at = frame[at + 6], at + 40
            while protocol in (HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS):
                size = 8 if protocol == FRAGMENT else 8 + 8 * frame[at + 1]
                protocol, at = frame[at], at + size
            if protocol == ICMP6 and frame[at] in NEIGHBOUR_DISCOVERY:
                return False
        else:
            protocol = None
    except IndexError:  # it ends too early to be anything
        return False
    return kind in unwanted or protocol in unwanted


def check(value):
    """Raise ValueError if a value may not stand in a stream."""
    if isinstance(value, dict):
        if value.get("format") == "frames":
            if value.get("version") != 1:
                raise ValueError(f"the stream is of version {value.get('version')}, this reads version 1")
            if value.get("link", "ethernet") not in ("ethernet", "ip"):
                raise ValueError(f"the stream's link is {value['link']}")
        return
    if not isinstance(value, list) or len(value) < 3:
        raise ValueError("found neither a frame nor an annotation")
    time, offload, frame = value[:3]
    if type(time) is not int or time < 0:
        raise ValueError("the time is no unsigned integer")
    if offload is not None and (type(offload) is not bytes or len(offload) != 10):
        raise ValueError("the offload is neither nil nor 10 bytes")
    if type(frame) is not bytes or len(frame) > MAX_FRAME:
        raise ValueError("the frame is no bin of up to 1 MiB")


def write(data):
    while data:
        try:
            data = data[os.write(1, data):]
        except BrokenPipeError:
            raise
        except OSError as e:
            fail(1, f"stdout: {e.strerror}")


def run(unwanted):
    link = "ethernet"
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_bin_len=MAX_FRAME,
                                max_buffer_size=MAX_VALUE + READ)
    # Asking for nothing on stdout tells all the same when its reader is gone.
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(1, 0)
    buf, offset = b"", 0  # what was read and is not dealt with, and where in the stream it begins
    while True:
        if 1 in dict(poll.poll()):
            return None
        data = os.read(0, READ)
        if not data:
            return f"offset {offset}: the input ends inside a value" if buf else None
        unpacker.feed(data)
        buf += data
        # What passes is cut out of buf, in pieces as large as can be, and
        # written at once: never wait with something in hand.
        passed, start, end, wrong = [], 0, 0, None
        try:
            for value in unpacker:
                check(value)
                if isinstance(value, dict):
                    link = value.get("link", link) if value.get("format") == "frames" else link
                elif drops(value[2], link, unwanted):
                    passed.append(buf[start:end])
                    start = unpacker.tell() - offset
                end = unpacker.tell() - offset
            if len(buf) - end > MAX_VALUE:
                raise ValueError("a value of more than 1 MiB and 64 KiB")
        except Exception as e:  # the module has no one class for bytes that are wrong
            wrong = f"offset {offset + end}: {e or type(e).__name__}"
        passed.append(buf[start:end])
        write(memoryview(b"".join(passed)))
        if wrong:
            return wrong
        buf, offset = buf[end:], offset + end


def main():
    if len(sys.argv) != 2:
        fail(2, "one argument is wanted: arp, ip, ip6, icmp, tcp, udp or a number")
    name = sys.argv[1]
    try:
        unwanted = NAMES.get(name) or {int(name, 0)}
    except ValueError:
        fail(2, f"there is no protocol {name}")
    # ^C reaches all stages at once. The source stops, and the others come to the
    # end of their input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        wrong = run(unwanted)
    except BrokenPipeError:
        wrong = None
    except OSError as e:
        wrong = f"stdin: {e.strerror}"
    if wrong:
        fail(1, wrong)


if __name__ == "__main__":
    main()
