"""An S3 server of this machine (moto), in a process of its own, with faults to order.

A test takes the fixture `s3`, and `s3.folder("x")` for an address in a new bucket. The server holds everything in
memory: it is empty after it was killed and started again. Objects are served to plain HTTP, too (`s3.web`).
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTESTS", "AWS_SECRET_ACCESS_KEY": "sesame-open-secret"}
_CONTROL = "/_faults"
_BUSY = b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your request rate</Message></Error>"
_SECONDS = 60.0  # until it answers


class S3Server:
    """The server, from the outside."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.web = f"http://127.0.0.1:{self.port}"
        # For fsspec and everything else that speaks S3, here and in processes that are started.
        self.environment = {**KEYS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.web}
        self.environment |= {"AWS_EC2_METADATA_DISABLED": "true"}
        self.start()

    def start(self) -> None:
        """Start it, empty; returns when it answers."""
        self._process = subprocess.Popen([sys.executable, __file__, str(self.port)])
        end = time.monotonic() + _SECONDS
        while True:
            try:
                self.faults()
                return
            except OSError:
                assert time.monotonic() < end and self._process.poll() is None, "the S3 server did not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill it, with all that it holds."""
        self._process.kill()
        self._process.wait()

    def bucket(self, name: str = "") -> str:
        """A new bucket."""
        name = name or f"tests-{uuid.uuid4().hex[:12]}"
        self._send("PUT", f"/{name}", b"")
        return name

    def signed(self, address: str) -> str:
        """A web address of an object that is good for an hour."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.web, region_name="us-east-1", **_as_boto(KEYS))
        bucket, _, key = address.removeprefix("s3://").partition("/")
        url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        return url

    def folder(self, name: str = "out") -> str:
        """The address of a folder in a new bucket."""
        return f"s3://{self.bucket()}/{name}"

    def keys(self, address: str) -> list[str]:
        """The objects below an address, as the server has them."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        text = self._send("GET", f"/{bucket}?list-type=2&prefix={prefix}", b"").decode()
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]

    def faults(self, **faults: Any) -> dict[str, int]:
        """Set the faults, and return how many requests there were of each method since the last call.

        busy=K: every K-th request is answered 503; cut=K: the connection of every K-th upload breaks in its body;
        part=N: that of every upload of a file's N-th part does; delay=S: each answer takes S seconds more; down=S:
        for so long, every connection breaks.
        """
        answer: dict[str, int] = json.loads(self._send("POST", _CONTROL, json.dumps(faults).encode()))
        return answer

    def _send(self, method: str, path: str, data: bytes) -> bytes:
        request = urllib.request.Request(self.web + path, data or None, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            content: bytes = response.read()
            return content


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server of all tests of a process."""
    server = S3Server()
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, without faults; fsspec knows it, and waits a moment only between attempts."""
    with speaking_to(s3_server, monkeypatch):
        yield s3_server


@contextmanager
def speaking_to(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it, s3:// addresses of this process are those of a server, and attempts follow each other fast."""
    from s3fs import S3FileSystem

    import skelfit.storage.patience

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of botocore
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setattr(skelfit.storage.patience, "PAUSES", [0.02, 0.05, 0.1, 0.1, 0.1])
    S3FileSystem.clear_instance_cache()
    server.faults()
    yield
    S3FileSystem.clear_instance_cache()


def _as_boto(keys: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in keys.items()}


class _Faults:
    """A WSGI application in front of moto's."""

    def __init__(self, application: Any) -> None:
        self.application, self.ordered = application, dict[str, float]()
        self.count, self.uploads, self.down_until = 0, 0, 0.0
        self.methods: dict[str, int] = {}
        self.turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == _CONTROL:
            return self.control(environ, start_response)
        method = environ["REQUEST_METHOD"]
        self.methods[method] = self.methods.get(method, 0) + 1
        self.count += 1
        if time.monotonic() < self.down_until:
            return self.hang_up(environ)
        time.sleep(self.ordered.get("delay", 0))
        if method == "PUT":
            self.uploads += 1
            if self.is_turn("cut", self.uploads) or self.is_part(environ["QUERY_STRING"]):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
                return self.hang_up(environ)
        if self.is_turn("busy", self.count):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Service Unavailable", [("Content-Length", str(len(_BUSY)))])
            return [_BUSY]
        if length := int(environ.get("CONTENT_LENGTH") or 0):
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with self.turn:  # moto answers 500 where a file goes while it lists a folder; S3 does not
            return list(self.application(environ, start_response))

    def is_turn(self, fault: str, count: int) -> bool:
        every = int(self.ordered.get(fault, 0))
        return every > 0 and count % every == 0

    def is_part(self, query: str) -> bool:
        return f"partNumber={self.ordered.get('part')}" in query.split("&")

    def control(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.ordered = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.down_until = time.monotonic() + self.ordered.get("down", 0)
        start_response("200 OK", [("Content-Type", "application/json")])
        counted, self.methods, self.count, self.uploads = self.methods, {}, 0, 0
        return [json.dumps(counted).encode()]

    @staticmethod
    def hang_up(environ: dict[str, Any]) -> list[bytes]:
        connection = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


def _serve(port: int) -> None:
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections stay open, as those of S3 do
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _Faults(DomainDispatcherApplication(create_backend_app))
    make_server("127.0.0.1", port, application, threaded=True).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
