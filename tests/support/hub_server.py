"""A stand-in for the Hugging Face Hub: the parts of its HTTP interface that its library calls to publish a dataset.

Large files go by LFS, as where the library's package for Xet is not there. It holds all in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_standIn0123456789"
ACCOUNT = "someone"
LICENCES = ["unknown", "cc-by-4.0"]
SMALL = 4000  # bytes: smaller files that are text are no LFS files


@dataclass
class Repository:
    """Its branches: content by path."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: {"main": {".gitattributes": b"*\n"}}
    )
    commits: list[str] = field(default_factory=list)  # their messages


@dataclass
class StandInHub:
    """All that it holds and was asked for."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS objects by sha256
    received: list[str] = field(default_factory=list)  # sha256 of each LFS object that came, in order
    requests: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)  # how often a method and path shall fail with 503
    on_object: Callable[[], object] = lambda: None  # called before an LFS object is kept
    lock: threading.Lock = field(default_factory=threading.Lock)

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """The files of a repository, without its .gitattributes."""
        tree = self.repositories[name].branches[branch]
        return {path: content for path, content in tree.items() if path != ".gitattributes"}


class _Refusal(Exception):
    """An HTTP error: code, and the name of it that the library looks at."""

    def __init__(self, code: int, name: str = "", text: str = "", errors: Any = ()) -> None:
        super().__init__(text or name)
        self.code, self.name, self.errors = code, name, list(errors)


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """A Hub on a port of this machine."""
    hub = StandInHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that go away: some are killed."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Says nothing."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        url = urlsplit(self.path)
        path = unquote(url.path)
        request = f"{self.command} {path}"
        headers: dict[str, str] = {}
        try:
            with self.hub.lock:
                self.hub.requests.append(request)
                if self.hub.failures.get(request, 0) > 0:
                    self.hub.failures[request] -= 1
                    raise _Refusal(503, text="the stand-in is out of order")
            if (
                not path.startswith(("/objects/", "/api/validate-yaml"))
                and self.headers.get("Authorization") != f"Bearer {TOKEN}"
            ):
                raise _Refusal(401, text="Invalid username or password.")
            code, answer = 200, self._answer(path, parse_qs(url.query), body, headers)
        except _Refusal as refusal:
            code, answer = refusal.code, {"error": str(refusal), "errors": refusal.errors}
            headers = {"X-Error-Code": refusal.name, "X-Error-Message": str(refusal)}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, path: str, query: Any, body: bytes, headers: dict[str, str]) -> Any:
        if path == "/api/whoami-v2":
            return {"type": "user", "name": ACCOUNT}
        if path == "/api/validate-yaml":
            return _checked_card(json.loads(body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/objects/([0-9a-f]{64})", path):
            return self._keep(match[1], body)
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._content(self._tree(match[1], match[2]), match[3], headers)
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)", path):
            repository = self._repository(match[1])
            return {"id": match[1], "private": repository.private, "sha": "0" * 40, "siblings": []}
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(tree|preupload|commit|branch)/(.+)", path):
            return getattr(self, f"_{match[2]}_request")(match[1], match[3], body)
        raise _Refusal(404, "EntryNotFound", f"nothing at {path}")

    def _repository(self, name: str) -> Repository:
        if name not in self.hub.repositories:
            raise _Refusal(404, "RepoNotFound", "Repository not found")
        return self.hub.repositories[name]

    def _tree(self, name: str, branch: str) -> dict[str, bytes]:
        branches = self._repository(name).branches
        if branch not in branches:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        return branches[branch]

    def _create(self, asked: Any) -> Any:
        assert asked["type"] == "dataset"
        name = f"{asked['organization'] or ACCOUNT}/{asked['name']}"
        private = asked["visibility"] == "private" if "visibility" in asked else bool(asked.get("private"))
        self.hub.repositories[name] = Repository(private)
        return {"url": f"{self.hub.endpoint}/datasets/{name}"}

    def _branch_request(self, name: str, branch: str, _: bytes) -> Any:
        branches = self._repository(name).branches
        branches[branch] = dict(branches["main"])
        return {}

    def _tree_request(self, name: str, branch: str, _: bytes) -> Any:
        return [_entry(path, content) for path, content in sorted(self._tree(name, branch).items())]

    def _preupload_request(self, name: str, branch: str, body: bytes) -> Any:
        tree = self._tree(name, branch)
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_lfs(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(file["path"], tree[file["path"]]) if file["path"] in tree else None,
                }
                for file in json.loads(body)["files"]
            ]
        }

    def _batch(self, asked: Any) -> Any:
        objects = []
        for item in asked["objects"]:
            known = item["oid"] in self.hub.objects
            upload = {"upload": {"href": f"{self.hub.endpoint}/objects/{item['oid']}"}}
            objects.append(item if known else {**item, "actions": upload})
        return {"transfer": "basic", "objects": objects}

    def _keep(self, oid: str, content: bytes) -> Any:
        if hashlib.sha256(content).hexdigest() != oid:
            raise _Refusal(400, text="not the content of its hash")
        with self.hub.lock:
            self.hub.on_object()
            self.hub.objects[oid] = content
            self.hub.received.append(oid)
        return {}

    def _commit_request(self, name: str, branch: str, body: bytes) -> Any:
        tree, repository = self._tree(name, branch), self._repository(name)
        header, *operations = [json.loads(line) for line in body.splitlines()]
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                tree[value["path"]] = self.hub.objects[value["oid"]]
            else:
                assert operation["key"] == "deletedFile"
                del tree[value["path"]]
        repository.commits.append(header["value"]["summary"])
        oid = f"{len(repository.commits):040x}"
        return {"commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/{oid}", "commitOid": oid}

    def _content(self, tree: dict[str, bytes], path: str, headers: dict[str, str]) -> bytes:
        if path not in tree:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        headers |= {"ETag": f'"{_oid(path, tree[path])}"', "X-Repo-Commit": "0" * 40}
        return tree[path]


def _checked_card(text: str) -> Any:
    """What the Hub says of a card's front matter."""
    if yaml.safe_load(text.split("---\n")[1])["license"] not in LICENCES:
        raise _Refusal(400, errors=[{"message": f'"license" must be one of {LICENCES}'}])
    return {"errors": [], "warnings": []}


def _is_lfs(path: str, size: int) -> bool:
    return size > SMALL or not path.endswith((".md", ".json", ".jsonl", ".csv"))


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if _is_lfs(path, len(content)) else _git_hash(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_hash(content)}
    if _is_lfs(path, len(content)):
        sha256 = hashlib.sha256(content).hexdigest()
        entry |= {"oid": "1" * 40, "lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}}
    return entry
