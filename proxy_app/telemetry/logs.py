"""The log: JSON lines, or short text on a terminal; never a user's text, never a secret.

A line per request would cost as much as answering a hit does, so errors and slow requests are
always logged and the others by sample, decided before anything is formatted.
"""

from __future__ import annotations

import logging
import sys
import time

import orjson
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from proxy_app.settings import Settings

log = logging.getLogger("embedrack")

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, message, fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """A short line for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; anything worse than information says so."""
        text = super().format(record)
        if record.levelno > logging.INFO:
            text = f"{text[:8]} {record.levelname.lower()}:{text[8:]}"
        return text


def configure(settings: Settings) -> None:
    """Send the program's and gunicorn's log to stderr in the settings' format."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    log.setLevel(_LEVELS[settings.log_level])
    logging.getLogger("aiohttp.server").addFilter(_is_no_clients_fault)


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Leave out requests that are not HTTP, of which anyone can send millions."""
    error = record.exc_info and record.exc_info[1]
    return not isinstance(error, (HttpProcessingError, RequestPayloadError))


class RequestLog:
    """Decides which requests are logged, and writes their lines."""

    def __init__(self, settings: Settings) -> None:
        self._sample = settings.log_sample
        self._slow = settings.log_slow
        self._enabled = log.isEnabledFor(logging.INFO)
        self._seen = 0

    def wants(self, status: int, seconds: float) -> bool:
        """Tell whether this request gets a line; costs next to nothing when not."""
        if status >= 400 or seconds >= self._slow:
            return True
        self._seen += 1
        return self._enabled and bool(self._sample) and self._seen % self._sample == 0

    def write(
        self, method: str, path: str, status: int, seconds: float, fields: dict[str, object]
    ) -> None:
        """Write a request's line; ``fields`` are e.g. inputs, hits, misses, error."""
        shown = "".join(f"  {name} {value}" for name, value in fields.items())
        level = logging.WARNING if status >= 500 else logging.INFO
        log.log(
            level,
            "%s %s %d  %.1f ms%s",
            method,
            path,
            status,
            seconds * 1000,
            shown,
            extra={
                "fields": {
                    "method": method,
                    "path": path,
                    "status": status,
                    "ms": round(seconds * 1000, 3),
                    **fields,
                }
            },
        )
