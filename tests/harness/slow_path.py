"""Holds back a host's packets to some peers: they go through a tun device, wait here, and leave by the real cable.

Usage: python -IS slow_path.py READY_FILE OWN_ADDRESS DELAY_S JITTER_S SEED PEER…

Standard library only. Runs inside the host's network namespace, as root; the routes to the peers go with the device
when this ends, whatever ended it, and open connections just become fast again.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_DEVICE = "slow0"
_MOST_PACKETS = 20_000


def open_device(own: str, peers: list[str]) -> int:
    """Return a tun device that the packets to the peers are routed to."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    for name in ("all", "default", "eth0", _DEVICE):
        # The answers come in by another device than the requests go out by.
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
    commands = [f"link set {_DEVICE} mtu 1500 up", *(f"route add {peer}/32 dev {_DEVICE} src {own}" for peer in peers)]
    subprocess.run(["ip", "-batch", "-"], input="\n".join([*commands, ""]), text=True, check=True)
    return device


def open_cable() -> socket.socket:
    """Return a socket that sends whole IP packets by the real cable, past the routes."""
    cable = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    cable.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    return cable


def forward(device: int, cable: socket.socket, delay_s: float, jitter_s: float, chance: random.Random) -> None:
    """Let every packet wait its time, in the order in which they came; never returns."""
    waiting: collections.deque[tuple[float, bytes]] = collections.deque()
    last = 0.0
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([device], [], [], timeout)[0]:
            packet = os.read(device, 65536)
            last = max(last, time.monotonic() + delay_s + chance.uniform(0.0, jitter_s))
            if len(waiting) < _MOST_PACKETS and packet[0] >> 4 == 4:
                waiting.append((last, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            packet = waiting.popleft()[1]
            with contextlib.suppress(OSError):  # a packet that cannot leave is a lost one
                cable.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


def main() -> None:
    """Run until killed."""
    ready, own, delay_s, jitter_s, seed, *peers = sys.argv[1:]
    device, cable = open_device(own, peers), open_cable()
    Path(ready).touch()
    forward(device, cable, float(delay_s), float(jitter_s), random.Random(int(seed)))


if __name__ == "__main__":
    main()
