"""A Hub on loopback: enough of its HTTP for real `huggingface_hub` and `datasets` clients to push to and load from.

Clients need, before they are imported: HF_ENDPOINT=<url> HF_HUB_DISABLE_XET=1 HF_TOKEN=hf_test HF_HOME=<a folder of their own>
"""

import base64
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.metadata import metadata_problems
from tests.hub.store import Entry, Repository, Store


_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_ME = {
    "type": "user",
    "id": "1",
    "name": "me",
    "fullname": "Me",
    "email": "me@example.com",
    "orgs": [{"name": "org", "type": "org", "id": "2"}],
    "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}},
}
_WRITING = re.compile(
    r"^(POST|DELETE) /api/repos/|^POST .*/commit/|^(POST|DELETE) .*/(branch|tag)/|^PUT .*/settings$|^POST .*/info/lfs/"
)
_NO_OID = "0" * 40


class HubError(Exception):
    """An answer that is an error, with the code that clients turn into a typed exception."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


class CutConnection(Exception):  # noqa: N818
    """The connection ends here, without an answer."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *args: Any) -> None:
        """Stay silent: `store.requests` is the log."""

    def answer(self) -> None:
        """Answer one request of any method."""
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        self.store.requests.append((self.command, path))
        try:
            data = self._body(path)
            if status := self.store.next_failure(self.command, path):
                raise HubError(status, "Failure", f"Asked to fail with {status}", {"Retry-After": "0"})
            with self.store.lock:
                self._check_may_write(path)
                self._route(path, query, data)
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error), **error.headers}
            self._send({"error": str(error)}, error.status, headers)
        except CutConnection:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def _body(self, path: str) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        size = int(self.headers.get("Content-Length") or 0)
        if self.command != "PUT" or self.store.bytes_until_cut is None:
            return self.rfile.read(size)
        if self.store.bytes_until_cut == 0:  # clients try again before they give up
            self.rfile.read(size)
            raise HubError(403, "Forbidden", "The storage is away")
        if size > self.store.bytes_until_cut:
            self.rfile.read(self.store.bytes_until_cut // 2)
            self.store.bytes_until_cut = 0
            raise CutConnection(path)
        self.store.bytes_until_cut -= size
        return self.rfile.read(size)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, body: Any = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def _url(self) -> str:
        return f"http://{self.headers['Host']}"

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    @property
    def _is_known(self) -> bool:
        return self._token in self.store.tokens

    def _check_may_write(self, path: str) -> None:
        if _WRITING.search(f"{self.command} {path}"):
            if not self._is_known:
                raise HubError(401, "Unauthorized", "Invalid username or password")
            if self._token in self.store.readers:
                raise HubError(403, "Forbidden", "This token may read and not write")

    def _repository(self, kind: str, id: str) -> Repository:
        """A repository; to who may not see it, a private one is not there."""
        found = self.store.repositories.get((kind, id))
        if found is None or (found.is_private and not self._is_known):
            raise HubError(404, "RepoNotFound", "Repository not found")
        return found

    def _route(self, path: str, query: dict[str, list[str]], data: bytes) -> None:
        if path == "/api/whoami-v2":
            self._send_me()
        elif path == "/api/validate-yaml":
            self._validate(json.loads(data))
        elif path == "/api/repos/create":
            self._create(json.loads(data))
        elif path == "/api/repos/delete":
            self._delete(json.loads(data))
        elif match := re.match(r"/lfs/([0-9a-f]{64})$", path):
            self._take_large(match[1], data)
        elif match := re.match(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch$", path):
            self._repository(_KINDS[match[1] or "models"], match[2])
            self._send_batch(json.loads(data)["objects"])
        elif match := re.match(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(.*))?$", path):
            self._api(self._repository(_KINDS[match[1]], match[2]), match[3] or "", query, data)
        elif match := re.match(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/(.+)$", path):
            self._send_file(self._repository(_KINDS[match[1] or "models"], match[2]), match[3])
        else:
            raise HubError(404, "NotFound", f"There is no route {path}")

    def _send_me(self) -> None:
        if not self._is_known:
            raise HubError(401, "Unauthorized", "Invalid username or password")
        self._send(_ME)

    def _validate(self, asked: dict[str, Any]) -> None:
        """Check the metadata of a card, as the Hub does before it takes a commit."""
        kind = asked.get("repoType") or "model"
        errors = [{"message": problem} for problem in metadata_problems(asked["content"], kind)]
        self._send({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _delete(self, asked: dict[str, Any]) -> None:
        kind, id = asked.get("type") or "model", f"{asked.get('organization') or 'me'}/{asked['name']}"
        self._repository(kind, id)
        del self.store.repositories[kind, id]
        self._send({})

    def _create(self, asked: dict[str, Any]) -> None:
        kind = asked.get("type") or "model"
        id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"{self._url}/{'' if kind == 'model' else kind + 's/'}{id}"
        if (kind, id) in self.store.repositories:
            self._send({"error": "You already created this repo", "url": url}, 409)
            return
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.store.repositories[kind, id] = Repository(kind, id, is_private, asked.get("sdk"))
        self._send({"url": url, "name": id, "id": id})

    def _take_large(self, oid: str, data: bytes) -> None:
        if self.command == "PUT":
            self.store.blobs[oid] = data
            self.store.uploads.append(oid)
        self._send({})

    def _send_batch(self, objects: list[dict[str, Any]]) -> None:
        """Say where to upload what is not there yet."""
        answers = []
        for each in objects:
            action = {"href": f"{self._url}/lfs/{each['oid']}"}
            missing = {} if each["oid"] in self.store.blobs else {"actions": {"upload": action, "verify": action}}
            answers.append({"oid": each["oid"], "size": each["size"], **missing})
        self._send({"transfer": "basic", "objects": answers})

    def _send_file(self, repository: Repository, path: str) -> None:
        sha, name = repository.split_revision(path)
        if sha is None:
            raise HubError(404, "RevisionNotFound", "Revision not found")
        entry = repository.files(sha).get(name)
        if entry is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        data = self.store.blobs[entry.key]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.key}"', "Accept-Ranges": "bytes"}
        if entry.is_large:
            headers |= {"X-Linked-Etag": f'"{entry.key}"', "X-Linked-Size": str(len(data))}
        if match := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or ""):
            start, end = int(match[1]), int(match[2] or len(data) - 1)
            part = data[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
            self._send(part, 206, headers)
        else:
            self._send(data, 200, headers)

    def _api(self, repository: Repository, rest: str, query: dict[str, list[str]], data: bytes) -> None:
        verb, _, argument = rest.partition("/")
        if verb in ("", "revision"):
            self._send(self._info(repository, argument or "main"))
        elif verb == "refs":
            self._send(_refs(repository))
        elif verb == "preupload":
            asked = json.loads(data)
            ignored = asked.get("gitIgnore", "").split()
            self._send({"files": [self._mode(each, ignored) for each in asked["files"]]})
        elif verb == "commit":
            self._commit(repository, argument, data)
        elif verb == "tree":
            is_recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            self._send(self._tree(repository, argument, is_recursive))
        elif verb == "commits":
            self._send(_history(repository, self._sha(repository, argument)))
        elif verb == "paths-info":
            self._send(self._paths_info(repository, argument, data))
        elif verb in ("branch", "tag"):
            self._point(repository, verb, argument, json.loads(data or b"{}"))
        elif verb == "settings":
            repository.is_private = _is_private(json.loads(data), repository)
            self._send({})
        else:
            raise HubError(404, "NotFound", f"There is no route {rest}")

    def _sha(self, repository: Repository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise HubError(404, "RevisionNotFound", "Revision not found")
        return sha

    def _info(self, repository: Repository, revision: str) -> dict[str, Any]:
        sha = self._sha(repository, revision)
        date = repository.commits[sha]["date"]
        files = sorted(repository.files(sha).items())
        names = {"_id": "0", "id": repository.id, "modelId": repository.id, "author": repository.id.split("/")[0]}
        dates = {"sha": sha, "lastModified": date, "createdAt": date}
        flags = {"private": repository.is_private, "gated": False, "disabled": False, "tags": [], "cardData": {}}
        siblings = [{"rfilename": path, "size": len(self.store.blobs[entry.key])} for path, entry in files]
        space = {"sdk": repository.sdk} if repository.kind == "space" else {}
        return {**names, **dates, **flags, **space, "downloads": 0, "likes": 0, "siblings": siblings, "usedStorage": 0}

    def _mode(self, file: dict[str, Any], ignored: list[str]) -> dict[str, Any]:
        mode = "lfs" if self.store.is_large(file["path"], file["size"]) else "regular"
        is_ignored = any(fnmatch(Path(file["path"]).name, pattern) for pattern in ignored)
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": is_ignored}

    def _commit(self, repository: Repository, ref: str, data: bytes) -> None:
        parent = self._sha(repository, ref)
        files, header = dict(repository.files(parent)), {}
        for line in data.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = self.store.keep_small(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[value["path"]] = self._uploaded(value["oid"])
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                inside = value["path"].rstrip("/") + "/"
                files = {path: entry for path, entry in files.items() if not path.startswith(inside)}
        if header.get("parentCommit") not in (None, parent):
            raise HubError(412, "PreconditionFailed", "A commit has happened since")
        sha = repository.commit(ref, files, header.get("summary", ""))
        url = f"{self._url}/{repository.kind}s/{repository.id}/commit/{sha}"
        self._send({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def _uploaded(self, oid: str) -> Entry:
        if oid not in self.store.blobs:
            raise HubError(400, "BadRequest", f"The large file {oid} was not uploaded")
        return self.store.large(oid)

    def _tree(self, repository: Repository, argument: str, is_recursive: bool) -> list[dict[str, Any]]:
        sha, folder = repository.split_revision(argument)
        if sha is None:
            raise HubError(404, "RevisionNotFound", "Revision not found")
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        folders: dict[str, None] = {}
        entries = []
        for path, entry in sorted(repository.files(sha).items()):
            if path.startswith(prefix):
                parents = path.removeprefix(prefix).split("/")[:-1]
                depth = len(parents) if is_recursive else min(1, len(parents))
                folders |= {prefix + "/".join(parents[: count + 1]): None for count in range(depth)}
                if is_recursive or not parents:
                    entries.append(self._file_info(path, entry))
        if prefix and not entries and not folders:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist")
        return [*map(_folder_info, folders), *entries]

    def _paths_info(self, repository: Repository, revision: str, data: bytes) -> list[dict[str, Any]]:
        files = repository.files(self._sha(repository, revision))
        asked = json.loads(data)["paths"] if data[:1] == b"{" else parse_qs(data.decode()).get("paths", [])
        answers = []
        for path in (path.strip("/") for path in asked):
            if path in files:
                answers.append(self._file_info(path, files[path]))
            elif not path or any(other.startswith(f"{path}/") for other in files):
                answers.append(_folder_info(path))
        return answers

    def _file_info(self, path: str, entry: Entry) -> dict[str, Any]:
        size = len(self.store.blobs[entry.key])
        info: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": entry.oid}
        return {**info, "lfs": {"oid": entry.key, "size": size, "pointerSize": 130}} if entry.is_large else info

    def _point(self, repository: Repository, verb: str, name: str, asked: dict[str, Any]) -> None:
        """Make or remove a branch or a tag."""
        ref = f"tags/{asked.get('tag', name)}" if verb == "tag" else name
        if self.command == "DELETE":
            repository.refs.pop(ref, None)
        elif ref in repository.refs:
            raise HubError(409, "Conflict", f"The reference {ref} exists already")
        else:
            start = asked.get("startingPoint") or (name if verb == "tag" else "main")
            repository.refs[ref] = self._sha(repository, start)
        self._send({})


def _folder_info(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": _NO_OID}


def _is_private(asked: dict[str, Any], repository: Repository) -> bool:
    if "visibility" in asked:
        return bool(asked["visibility"] == "private")
    return bool(asked.get("private", repository.is_private))


def _history(repository: Repository, sha: str | None) -> list[dict[str, Any]]:
    """The commits that led to one, the newest first."""
    commits = []
    while sha is not None:
        commit = repository.commits[sha]
        commits.append({"id": sha, "title": commit["message"], "message": "", "authors": [], "date": commit["date"]})
        sha = commit["parent"]
    return commits


def _refs(repository: Repository) -> dict[str, Any]:
    refs = repository.refs.items()
    branches = [(ref, ref, f"refs/heads/{ref}", sha) for ref, sha in refs if not ref.startswith("tags/")]
    tags = [(ref, ref.removeprefix("tags/"), f"refs/{ref}", sha) for ref, sha in refs if ref.startswith("tags/")]
    named = {
        kind: [{"name": name, "ref": full, "targetCommit": sha} for _, name, full, sha in found]
        for kind, found in (("branches", branches), ("tags", tags))
    }
    return {**named, "converts": [], "pullRequests": []}


@contextmanager
def serve(store: Store, port: int = 0) -> Iterator[str]:
    """Serve a store until the block ends, at a port or any free one, and yield the URL."""
    handler = type("BoundHandler", (Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
