"""An S3 server (moto) on loopback, and a proxy before it that spoils answers on schedule."""

import http.client
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from rayprob.files import storage

BUCKET = "shards"


class Proxy(ThreadingHTTPServer):
    """Forwards to moto. `faults` holds what happens to the coming downloads of shards; `outage` is a status for everything."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int], address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Handler)
        self.target = target
        self.faults: list[str] = []
        self.downloads = 0
        self.outage = 0
        self._lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed in the middle of a request."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def next_fault(self) -> str:
        with self._lock:
            self.downloads += 1
            return self.faults.pop(0) if self.faults else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def forward(self) -> None:
        body = self.body()
        if self.server.outage:
            self.send_response(self.server.outage)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        is_download = self.command == "GET" and ".tar" in self.path
        fault = self.server.next_fault() if is_download else ""
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        connection = http.client.HTTPConnection(*self.server.target, timeout=20)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, body or None, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "500":
            answer.status, content = 500, b"<Error><Code>InternalError</Code></Error>"
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault == "truncate":
            content, self.close_connection = content[: len(content) // 2], True
        if fault == "flip":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content)

    def body(self) -> bytes:
        """Read what was sent, in pieces or at once."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while length_bytes := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(length_bytes))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Serve the files of a folder as s3://shards/data, for this process and its loader workers."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    proxy = Proxy(moto.get_host_and_port())
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    try:
        client = boto3.client("s3", endpoint_url=settings["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket=BUCKET)
        for path in filter(Path.is_file, folder.rglob("*")):
            client.upload_file(str(path), BUCKET, f"data/{path.relative_to(folder)}")
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


def ask_once(server: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out pyarrow's own further attempts, which take six seconds and more."""
    once = fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{server.server_port}",
        scheme="http",
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    resolve = storage.resolve
    monkeypatch.setattr(
        storage, "resolve", lambda uri: resolve(uri) if storage.is_local(uri) else (once, uri.removeprefix("s3://"))
    )
