"""Run a command where only loopback leads anywhere, and count what tries to leave it.

    unshare --map-root-user --net --mount python loopback.py REPORT.json COMMAND …

The namespace has `lo` and one more interface, which carries the default route and ends nowhere: every packet for somewhere else
is sent on it and counted. The resolver's address lies behind it too. Standard library alone: it starts before anything of ours.

    REPORT.json   {"code": exit status, "sent": packets on that interface, "listening": addresses beyond loopback}
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

OUTSIDE = "outside"
ADDRESS, RESOLVER = "192.0.2.1", "192.0.2.53"  # of a range that is reserved for documentation
_LISTEN = 10


def main(report: Path, command: list[str]) -> int:
    """Set the namespace up, run the command, write the report; returns the command's exit status."""
    _close_off()
    done = threading.Event()
    listening: set[str] = set()
    watcher = threading.Thread(target=_watch, args=(done, listening))
    watcher.start()
    try:
        code = subprocess.run(command, check=False).returncode
    finally:
        done.set()
        watcher.join()
    report.write_text(json.dumps({"code": code, "sent": _sent(), "listening": sorted(listening)}))
    return code


def _close_off() -> None:
    _ip("link", "set", "lo", "up")
    try:
        _ip("link", "add", OUTSIDE, "type", "dummy")
    except RuntimeError:  # a kernel without dummies: one end of a cable to nowhere
        _ip("link", "add", OUTSIDE, "type", "veth", "peer", "name", "nowhere")
        _ip("link", "set", "nowhere", "addrgenmode", "none", "arp", "off")
        _ip("link", "set", "nowhere", "up")
    # no IPv6 address: the kernel's own router solicitations are not what is to be counted
    _ip("link", "set", OUTSIDE, "addrgenmode", "none", "arp", "off")
    _ip("link", "set", OUTSIDE, "up")
    _ip("address", "add", f"{ADDRESS}/24", "dev", OUTSIDE)
    _ip("route", "add", "default", "dev", OUTSIDE)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolver:
        resolver.write(f"nameserver {RESOLVER}\n")
        resolver.flush()
        subprocess.run(["mount", "--bind", resolver.name, "/etc/resolv.conf"], check=True)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _sent() -> int:
    (link,) = json.loads(_ip("-s", "-j", "link", "show", "dev", OUTSIDE))
    return int(link["stats64"]["tx"]["packets"])


def _watch(done: threading.Event, listening: set[str]) -> None:
    """Collect TCP listeners that a neighbour could reach."""
    while not done.wait(0.2):
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                local, state = line.split()[1], int(line.split()[3], 16)
                address = _address(local.split(":")[0])
                if state == _LISTEN and not address.is_loopback:
                    listening.add(f"{address}:{int(local.split(':')[1], 16)}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel writes each 32-bit word in host order."""
    raw = bytes.fromhex(text)
    address = ipaddress.ip_address(b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4)))
    return (address.version == 6 and address.ipv4_mapped) or address


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
