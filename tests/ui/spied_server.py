"""`ddpm` with every connection to another host written down: spied_server.py LOG COMMAND ..."""

import ipaddress
import sys
from pathlib import Path

LOG = Path(sys.argv[1])


def is_here(host):
    """Whether a name or an address is that of this machine."""
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def spy(event, arguments):
    """See `sys.addaudithook`."""
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket of Unix
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        host = arguments[0] if event != "socket.sendto" else arguments[1][0]
    else:
        return
    if not is_here(host):
        with LOG.open("a", encoding="utf-8") as file:
            file.write(f"{event} {host!r}\n")


if __name__ == "__main__":
    LOG.touch()
    sys.addaudithook(spy)
    from ddpm.cli import main

    sys.exit(main(sys.argv[2:]))
