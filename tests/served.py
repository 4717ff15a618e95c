"""Files at a server of HTTP on this machine, which fails when it is told to; and in tar files."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from salt_plugin.video import remote


class Server(http.server.ThreadingHTTPServer):
    """Serves files by parts; `failures` answers 503 to the next requests, `stuck` to none."""

    daemon_threads = True
    files: dict[str, bytes]
    failures = 0
    stuck: threading.Event | None = None
    asked: list[tuple[int, int]]

    def at(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        if server.stuck is not None:
            server.stuck.wait(30)
            return
        if server.failures:
            server.failures -= 1
            self.send_error(503)
            return
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        given = self.headers.get("Range")
        start, stop = 0, len(content)
        if given:
            first, last = given.removeprefix("bytes=").split("-")
            start, stop = int(first), int(last) + 1
            server.asked.append((start, stop))
        self.send_response(206 if given else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Server]:
    """Serves contents by their paths, each with a slash before it."""
    made = Server(("127.0.0.1", 0), Handler)
    made.files, made.asked = dict(files), []
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    remote._state.cache_clear()  # another server may have had this port
    yield made
    if made.stuck:
        made.stuck.set()
    made.shutdown()
    made.server_close()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
