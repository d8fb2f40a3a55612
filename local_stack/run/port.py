"""The proxy's port, the only one of the stack that is fixed: whether it can be had."""

import errno
import socket

HOST = "127.0.0.1"


def trouble(port: int) -> int:
    """Why the port cannot be had, as the system's error number; 0 if it can."""
    # Some systems let two programs bind it where one of them took every address: ask first.
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return errno.EADDRINUSE
    with socket.socket() as probe:
        # As a server does: connections of the last run that still close do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return 0


def free_after(port: int) -> int:
    """A free port above this one, the nearest."""
    for candidate in range(port + 1, min(port + 100, 65536)):
        if not trouble(candidate):
            return candidate
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number: int = probe.getsockname()[1]
        return number
