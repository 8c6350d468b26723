"""Requests to a store, tried again while it does not answer."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from skelfit.errors import StoreError, without_secrets

T = TypeVar("T")
# Seconds before each further attempt: long enough for a server that is started again.
PAUSES = [0.5, 1.0, 2.0, 4.0, 8.0]
_JITTER = 0.5  # of a pause, at random: many workers meet the same trouble at the same time
# Errors of the packages that stand between fsspec and a store; many of them are no OSError.
_PACKAGES = set(
    "aiobotocore aiohttp botocore fsspec gcsfs google httpx huggingface_hub requests s3fs urllib3".split()
)
_BUSY = {errno.EIO, errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EPIPE}
# Parts of the names of errors that a lost connection or a slow server raises.
_LOST = "Timeout Connection HTTPClientError Disconnected ClientPayload Incomplete Streaming Protocol ReadError".split()
# What a store says of a file, and not of itself.
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_log = logging.getLogger(__name__)


def patiently(what: object, request: Callable[[], T]) -> T:
    """The answer to a request, which is made again when the store is busy, slow or gone for a moment.

    what: the address, for messages. Raises StoreError; FileNotFoundError and FileExistsError as they are.
    """
    for pause in [*PAUSES, None]:
        try:
            return request()
        except _ANSWERS as error:
            raise type(error)(without_secrets(str(error))) from None
        except Exception as error:
            if not _is_of_store(error):
                raise
            if pause is None or not _may_pass(error):
                raise StoreError(f"{what}: {_told(error)}") from None
            _log.warning("%s: %s; tried again in %g s", what, _text(error), pause)
            time.sleep(pause * (1 - _JITTER * random.random()))
    raise AssertionError("the last attempt returns or raises")


def _is_of_store(error: Exception) -> bool:
    return isinstance(error, (OSError, TimeoutError, asyncio.TimeoutError)) or (
        type(error).__module__.partition(".")[0] in _PACKAGES
    )


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, PermissionError):
        return False
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for status in (getattr(error, "status", None), getattr(error, "code", None), response):
        code = getattr(status, "status_code", status)
        if isinstance(code, int):
            return code in (408, 425, 429) or code >= 500
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, ConnectionError)):
        return True
    if isinstance(error, OSError) and error.errno in _BUSY:
        return True
    return any(word in cls.__name__ for cls in type(error).__mro__ for word in _LOST)


def _told(error: Exception) -> str:
    if "Credentials" in type(error).__name__:
        return "no credentials for this store; docs/clusters.md says where they belong"
    refused = isinstance(error, PermissionError) or not _may_pass(error)
    return f"the store {'refuses' if refused else 'does not answer'}: {_text(error)}"


def _text(error: Exception) -> str:
    """What an error says, in one line without secrets."""
    text = " ".join(without_secrets(str(error)).split())
    return text[:300] or type(error).__name__
