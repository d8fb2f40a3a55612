"""What has arrived at a connection and was not read yet."""

from __future__ import annotations

import fcntl
import termios

from aiohttp.web_protocol import RequestHandler


def has_unread(connection: RequestHandler) -> bool:
    """Tell whether bytes have arrived that the loop has not read yet."""
    if connection.transport is None:
        return False
    file = connection.transport.get_extra_info("socket").fileno()
    count = fcntl.ioctl(file, termios.FIONREAD, b"\0" * 4) if file >= 0 else b""
    return any(count)
