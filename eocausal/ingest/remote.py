"""Images behind HTTP and object stores: range reads, retries, signatures.

A path of this machine passes through untouched. For anything else three facts decide how it is
read, all measured against a server that fails on purpose (``tests/faults/test_http_faults.py``):

- GDAL remembers what it was told. After one 503 (or 403, or 404) it answers every later ``open``
  of that URL in the process itself, without a request; after a connection cut within a range it
  keeps the short piece and fails on it for ever. Opening again with ``CPL_VSIL_CURL_NON_CACHED``
  forgets that URL, and nothing else, and asks the server anew. So a retry is: close, wait, open
  uncached, read again.
- GDAL's own retry (``GDAL_HTTP_MAX_RETRY``) can take minutes and does not renew a signature, so
  it is off, and :class:`Retry` decides.
- A signature expires while a cube is built. ``sign`` turns an href into one that can be read
  now; it is called at each opening, and its result is in no table, lock, cube or message.

    image = RemoteImage(href, sign=sign)
    image.run(lambda source: source.read(window=window))
    image.close()
"""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import rasterio
from rasterio.errors import RasterioError

__all__ = [
    "RemoteImage",
    "Retry",
    "Sign",
    "environment",
    "gdal_path",
    "is_remote",
    "open_remote",
    "probe",
    "reason_of",
    "unsigned",
]

T = TypeVar("T")
Sign = Callable[[str], str]
"""Turns an href into one that can be read now."""

_PREFIXES: Final = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
_OPTIONS: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
}
_UNCACHED: Final = {
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
}
_STATUS = re.compile(r"HTTP (?:response|error) code\s*:?\s*(\d{3})")
_DENIED: Final = frozenset({401, 403})
_GONE: Final = frozenset({400, 404, 405, 410, 414, 451})
_SECRET = re.compile(
    r"sig|signature|(x-amz|x-goog|x-ms)-.+|awsaccesskeyid|googleaccessid|expires|policy|"
    r"key-pair-id|.*token|.*api[-_]?key|subscription-key|password|secret|authorization",
    re.IGNORECASE,
)
_SHARED_ACCESS = re.compile(r"s[vspertk]|ss|srt|spr|sip|sk[tesv]|sktid|skoid|rsc[declt]")
_doubtful: set[str] = set()
"""Hrefs of which GDAL may remember a failure, or a file that has been replaced since."""
_versions: dict[str, tuple[int, str]] = {}
"""What :func:`probe` last heard of each href in this process."""


def is_remote(href: str) -> bool:
    """Whether an href is not a path of this machine."""
    return href.startswith("/vsi") or ("://" in href and not href.startswith("file://"))


def gdal_path(href: str) -> str:
    """Say an href as GDAL does: ``https://...`` is ``/vsicurl/https://...``.

    Examples
    --------
    >>> gdal_path("s3://bucket/B04.tif"), gdal_path("local/B04.tif")
    ('/vsis3/bucket/B04.tif', 'local/B04.tif')
    """
    scheme, found, rest = href.partition("://")
    if not found:
        return href
    if scheme == "file":
        return urllib.request.url2pathname(rest)
    return _PREFIXES[scheme.lower()] + rest if scheme.lower() in _PREFIXES else href


def unsigned(href: str) -> str:
    """Take the signature, token or password out of a URL.

    Examples
    --------
    >>> unsigned("https://host/B04.tif?v=2&X-Amz-Signature=0f3a&X-Amz-Expires=60")
    'https://host/B04.tif?v=2'
    """
    try:
        parts = urlsplit(href)
    except ValueError:
        return href
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    shared = any(k == "sig" for k, _ in pairs)
    kept = [
        (k, v)
        for k, v in pairs
        if not _SECRET.fullmatch(k) and not (shared and _SHARED_ACCESS.fullmatch(k))
    ]
    host = parts.netloc.rpartition("@")[2]
    if len(kept) == len(pairs) and host == parts.netloc:
        return href
    return urlunsplit((parts.scheme, host, parts.path, urlencode(kept), parts.fragment))


def environment(href: str, *, cached: bool = True) -> AbstractContextManager[Any]:
    """Set GDAL up to read an href, in this thread: range reads, time limits, no own retries.

    What the user has set by environment variables stays. For a path of this machine it does
    nothing.

    Parameters
    ----------
    href
        Path or URL.
    cached
        False to open it as if for the first time, without what GDAL remembers of it.
    """
    if not is_remote(href):
        return nullcontext()
    options = {**_OPTIONS, **({} if cached else _UNCACHED)}
    settings: AbstractContextManager[Any] = rasterio.Env(
        **{k: v for k, v in options.items() if k not in os.environ}
    )
    return settings


@dataclass(frozen=True, slots=True)
class Retry:
    """When to try again, and when to give up.

    Parameters
    ----------
    attempts
        How often at most, the first included.
    first_delay
        Seconds before the second attempt.
    factor
        Each wait is this much longer than the one before. There is no randomness in it.
    longest
        Seconds of waiting in all, over the life of an open image.
    """

    attempts: int = 4
    first_delay: float = 0.5
    factor: float = 2.0
    longest: float = 30.0

    def delays(self) -> list[float]:
        """Give the waits between attempts in seconds; together no more than ``longest``."""
        waits: list[float] = []
        for k in range(self.attempts - 1):
            wait = self.first_delay * self.factor**k
            if sum(waits) + wait > self.longest:
                break
            waits.append(wait)
        return waits


def reason_of(error: BaseException) -> str:
    """Text of the first cause of an error, which is the one that says something."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def _status_of(error: BaseException) -> int | None:
    """HTTP status that an error of GDAL tells of; None if it tells of none."""
    seen: BaseException | None = error
    while seen is not None:
        match = _STATUS.search(str(seen))
        if match:
            return int(match[1])
        seen = seen.__cause__
    return None


class RemoteImage:
    """An open image that opens itself again when reading fails; one thread uses it at a time.

    Parameters
    ----------
    href
        Path or URL, without a signature.
    retry
        When to give up. A path of this machine is never tried again.
    sign
        See the module.

    Raises
    ------
    OSError, rasterio.errors.RasterioError
        If it cannot be opened: at once where the server says that it is not there (404), or
        that it may not be read (401, 403) and there is no ``sign``.
    """

    def __init__(self, href: str, *, retry: Retry | None = None, sign: Sign | None = None) -> None:
        self.href = href
        self._sign = sign
        self._retry = retry if retry is not None else Retry()
        self._waited = 0.0
        self._secrets: list[str] = []
        self._source: Any = None
        self.run(lambda _: None)

    def run(self, action: Callable[[Any], T]) -> T:
        """Call ``action`` with the open dataset; if reading fails, open it anew and call again."""
        if not is_remote(self.href):
            if self._source is None:
                self._source = rasterio.open(gdal_path(self.href))
            return action(self._source)
        delays = self._retry.delays()
        for attempt in range(len(delays) + 1):
            try:
                with environment(self.href, cached=attempt == 0 and self.href not in _doubtful):
                    if self._source is None:
                        self._source = rasterio.open(self._path())
                    result = action(self._source)
                _doubtful.discard(self.href)
                return result  # noqa: TRY300
            except (RasterioError, OSError) as error:
                self.close()
                _doubtful.add(self.href)
                status = _status_of(error)
                if not self._wait(status, attempt, delays):
                    tries = "" if attempt == 0 else f" (after {attempt + 1} attempts)"
                    raise OSError(self._plain(reason_of(error)) + tries) from None
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, status: int | None, attempt: int, delays: list[float]) -> bool:
        """Wait before the next attempt; False if there is to be none."""
        if attempt == len(delays) or status in _GONE:
            return False
        if status in _DENIED and self._sign is None:
            return False
        wait = 0.0 if status in _DENIED and attempt == 0 else delays[attempt]
        if self._waited + wait > self._retry.longest:
            return False
        self._waited += wait
        time.sleep(wait)
        return True

    def _path(self) -> str:
        if self._sign is None:
            return gdal_path(self.href)
        signed = self._sign(self.href)
        self._secrets = [*self._secrets[-3:], signed, signed.partition("?")[2]]
        return gdal_path(signed)

    def _plain(self, text: str) -> str:
        """Take signatures out of a message."""
        for secret in filter(None, self._secrets):
            text = text.replace(secret, self.href if "://" in secret else "...")
        return text.replace(self.href, unsigned(self.href))

    def close(self) -> None:
        """Close the dataset; :meth:`run` would open it again."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def detach(self) -> Any:
        """Give the open dataset away."""
        source, self._source = self._source, None
        return source


def open_remote(href: str, *, retry: Retry | None = None, sign: Sign | None = None) -> Any:
    """Open an image as a rasterio dataset, trying again as :class:`RemoteImage` does.

    What is read from it later is not tried again; for that, use :class:`RemoteImage`.
    """
    return RemoteImage(href, retry=retry, sign=sign).detach()


def probe(href: str, *, sign: Sign | None = None, timeout: float = 10.0) -> tuple[int, str]:
    """Ask a server for the size and the ETag of a file, by a request for its first byte.

    Where the answer is not that of the last time, what GDAL remembers of the file is forgotten.

    Returns
    -------
    (int, str)
        Bytes, 0 if unknown; ETag, '' if there is none. Nothing is raised: both are a courtesy.
    """
    if not href.startswith(("http://", "https://")):
        return 0, ""
    try:
        address = sign(href) if sign is not None else href
        request = urllib.request.Request(address, headers={"Range": "bytes=0-0"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            headers: Mapping[str, str] = answer.headers
            total = (headers.get("Content-Range") or "").rpartition("/")[2]
            if answer.status == 200:
                total = headers.get("Content-Length") or ""
            found = int(total) if total.isdigit() else 0, str(headers.get("ETag") or "")
    except (OSError, ValueError):
        return 0, ""
    if _versions.setdefault(href, found) != found:
        _versions[href] = found
        _doubtful.add(href)
    return found
