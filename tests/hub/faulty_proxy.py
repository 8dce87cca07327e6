"""A proxy in front of a hub: passes requests on, and does to chosen ones what networks do.

It also serves parts of files, which a client asks for to go on after an interruption and to read
the header of a large file: the server behind it sends every file whole (olah 0.5.4, for
repositories of its own).
"""

import http.client
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASSED_ON = (
    "content-type",
    "etag",
    "link",
    "location",
    "x-error-code",
    "x-error-message",
    "x-repo-commit",
)
"""Headers of an answer; its length is set here, and its encoding is none."""


@dataclass
class Fault:
    """What happens to requests for certain paths."""

    path: str
    """A regular expression that is searched in the path."""
    times: int = 1
    """How often; then the fault is gone."""
    status: int = 0
    """Answer with this instead."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of that answer."""
    token: str = ""
    """But pass on what comes with this token."""
    cut_after: int | None = None
    """Hang up after so many bytes of the content; of a file or its rest, as all that follows."""
    stall_after: int | None = None
    """Send so many bytes of the content, and no more for a minute."""
    corrupt: bool = False
    """Change the last byte of the content."""


@dataclass
class Request:
    """A request that was made."""

    method: str
    path: str
    range: str | None
    """The part that was asked for: `bytes=100-`."""
    has_token: bool
    status: int = 0
    """Of the answer; 0 before it is there."""

    @property
    def is_for_a_piece(self) -> bool:
        """Whether a piece was asked for, such as a header, and not all or the rest of a file."""
        return bool(self.range) and not self.range.endswith("-")


class FaultyProxy(ThreadingHTTPServer):
    """Listens on a free port of this machine; `faults` and `requests` may be looked at any time."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def record(self, request: Request, token: str) -> Fault | None:
        """Note a request; return what is to happen to it."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.path, request.path):
                    if not fault.status and request.is_for_a_piece:
                        continue
                    if fault.token and token == f"Bearer {fault.token}":
                        continue
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def do_GET(self) -> None:
        wanted, token = self.headers.get("Range"), self.headers.get("Authorization", "")
        request = Request(self.command, self.path, wanted, bool(token))
        fault = self.server.record(request, token)
        if fault and fault.status:
            request.status = fault.status
            self._answer(fault.status, fault.headers, b"")
            return
        status, headers, content = self._pass_on()
        request.status = status
        if fault and fault.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if wanted and status == 200:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
            whole, first = len(content), int(first)
            content = content[first : int(last) + 1 if last else whole]
            headers["Content-Range"] = f"bytes {first}-{first + len(content) - 1}/{whole}"
            status = 206
        self._answer(status, headers, content, fault)

    do_HEAD = do_GET

    def _pass_on(self) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        connection.request(self.command, self.path, headers={"Host": self.headers["Host"]})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        headers = {name: value for name in PASSED_ON if (value := answer.headers.get(name))}
        if self.command == "HEAD":
            headers["content-length"] = answer.headers.get("content-length", "0")
        return answer.status, headers, content

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, fault: Fault | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault and (fault.cut_after or fault.stall_after):
            self.wfile.write(content[: fault.cut_after or fault.stall_after])
            self.wfile.flush()
            time.sleep(60 if fault.stall_after else 0)
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, form: str, *arguments: object) -> None:
        """Say nothing: `requests` has it."""


@contextmanager
def proxy_of(port: int) -> Iterator[FaultyProxy]:
    """A proxy of what listens on this port, until the block ends."""
    with FaultyProxy(port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
