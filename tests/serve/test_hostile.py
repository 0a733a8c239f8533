"""What strangers may send: each is answered by an error in JSON, quickly, and without memory for what it claims to be."""

import io
import json
import struct
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits, ServeFile
from tests.serve.here import TOKEN, client_of

SMALLER = "the body has more than the 10,000 bytes that are allowed; send less, such as a smaller image"


def refused(client: TestClient, status: int, *, path: str = "/v1/predict", **sent: object) -> str:
    """Send a request, which must be refused, and return the message."""
    response = client.post(path, **sent)  # type: ignore[arg-type]
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"status", "kind", "message", "at"}
    assert error["status"] == status
    return str(error["message"])


def asked(**options: object) -> dict[str, str]:
    return {"options": json.dumps(options)}


def png(width_px: int, height_px: int) -> bytes:
    """Return a PNG that states a size, and has hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def jpeg_of(width_px: int, height_px: int) -> bytes:
    """Return a JPEG whose frame header states another size than that of its pixels."""
    buffer = io.BytesIO()
    Pillow.new("RGB", (16, 16)).save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height_px, width_px)
    return bytes(content)


def webp(width_px: int, height_px: int) -> bytes:
    """Return an extended WebP whose canvas has a size, without an image."""
    size = (width_px - 1).to_bytes(3, "little") + (height_px - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize("content", [png(50_000, 50_000), jpeg_of(65_000, 65_000), webp(16_000, 16_000)])
def test_a_header_with_too_many_pixels_is_refused_before_any_is_decoded(client: TestClient, content: bytes) -> None:
    message = refused(client, 422, content=content)
    assert "pixels, more than 67,108,864; shrink it" in message
    assert message.startswith("its header states ")


def test_the_limit_of_pixels_can_be_lower(bundle_path: str, jpeg: bytes) -> None:
    client = client_of(BundleService("small", bundle_path, Limits(pixels=100)))
    assert refused(client, 422, content=jpeg) == "its header states 32 x 24 pixels, more than 100; shrink it"


def test_a_body_that_is_too_large_is_refused_with_or_without_its_length(service: BundleService) -> None:
    client = client_of(service, limits=Limits(upload_bytes=10_000))
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1_000_000:
            sent += 1000
            yield b"\xff" * 1000

    assert refused(client, 413, content=b"\xff" * 10_001) == SMALLER
    assert refused(client, 413, content=endless()) == SMALLER
    assert refused(client, 413, files={"image": b"\xff" * 10_001}) == SMALLER


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 5000, "abc", ""])
def test_a_length_that_is_no_number_is_not_believed(client: TestClient, length: str, jpeg: bytes) -> None:
    response = client.post("/v1/predict", content=jpeg, headers={"content-length": length})
    assert response.status_code in (200, 413)


@pytest.mark.parametrize(
    "content", [b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"%PDF-1.4"]
)
def test_what_is_not_an_image_is_refused(client: TestClient, content: bytes) -> None:
    assert refused(client, 422, content=content).startswith(("the image is ", "its "))


def test_an_empty_body_is_told_from_an_empty_image(client: TestClient) -> None:
    response = client.post("/v1/predict", content=b"")
    assert response.status_code == 422
    assert "its body is empty; with curl, check the path after @" in response.json()["error"]["message"]
    assert "the image is empty" in client.post("/v1/predict", files={"image": b""}).json()["error"]["message"]


def test_an_image_that_is_cut_short_is_refused(client: TestClient, jpeg: bytes) -> None:
    for length in (20, len(jpeg) // 2, len(jpeg) - 3):
        assert refused(client, 422, content=jpeg[:length]).startswith(
            ("the image does not decode", "its JPEG header is broken")
        )


def test_queries_are_bounded_in_number_and_length(client: TestClient, jpeg: bytes) -> None:
    long, many = "P(" + "a" * 9997 + ")", ["P(cat)"] * 101
    found = refused(client, 422, content=jpeg, params=asked(queries=["P(cat)", long[:10_000]]))
    assert found == "query 2 has 10,000 characters; at most 2,000 are allowed"
    found = refused(client, 422, content=jpeg, params=asked(queries=many))
    assert found == "got 101 queries; at most 100 are allowed per request"
    assert refused(client, 422, content=jpeg, params=asked(top=1000)) == "top must be at most 100 here; got 1,000"


def test_a_query_that_cannot_be_read_states_where(client: TestClient, jpeg: bytes) -> None:
    response = client.post("/v1/predict", content=jpeg, params=asked(queries=["P(cat & dgo)"]))
    error = response.json()["error"]
    assert (response.status_code, error["kind"], error["at"]) == (422, "QueryError", 8)
    assert error["message"].startswith("unknown label 'dgo'; nearest: dog")
    deep = refused(client, 422, content=jpeg, params=asked(queries=["P(" + "(" * 500 + "cat" + ")" * 500 + ")"]))
    assert deep.startswith("more than 100 levels of parentheses")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("nonsense", "options: expected a JSON object"),
        ("[]", 'options: expected a JSON object such as {"top": 3}; got list'),
        ('{"top": NaN}', "NaN is not JSON"),
        ('{"top": Infinity}', "Infinity is not JSON"),
        ('{"top": 1e999}', "top: expected"),
        ('{"top": true}', "top: expected"),
        ('{"top": 0}', "top: input should be greater than 0"),
        ('{"top": -3}', "top: input should be greater than 0"),
        ('{"top": 2, "top": 3}', "'top' is stated twice"),
        ('{"querys": []}', "unknown key 'querys'; nearest: queries"),
        ('{"url": "http://example.org/a.jpg"}', "unknown key 'url'"),
        ('{"queries": "P(cat)"}', "queries: expected a list"),
        ('{"queries": [1, {}]}', "queries[1]"),
        ('{"evidence": ["cat"]}', "evidence: expected a mapping"),
        ('{"evidence": {"cat": "maybe"}}', "evidence for 'cat' must be True (present) or False (absent)"),
        ('{"evidence": {"cat": [[]]}}', "evidence for 'cat' must be"),
        ('{"evidence": {"kat": true}}', "unknown label 'kat'; nearest: cat"),
        ('{"rule": "label_XX"}', "label_XX"),
        ('{"queries": ["P(\\ud800)"]}', "unknown label"),
        ("[" * 100_000, "too many levels"),
        ('{"a":' * 50_000, "too many levels"),
        ('{"top": ' + "9" * 5000 + "}", "options: expected a JSON object"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(client: TestClient, jpeg: bytes, options: str, said: str) -> None:
    assert said in refused(client, 422, files={"image": jpeg}, data={"options": options})
    if len(options) < 1000 and "ud800" not in options:
        assert said in refused(client, 422, content=jpeg, params={"options": options})


def test_a_follow_up_that_makes_no_sense_is_refused(client: TestClient) -> None:
    for body in (
        b"",
        b"{}",
        b'{"sha256": 3}',
        b'{"sha256": "../../etc/passwd"}',
        b"\xff\xfe",
        b'{"sha256": "' + b"A" * 64 + b'"}',
    ):
        assert refused(client, 422, path="/v1/query", content=body)
    assert "allowed" in refused(client, 413, path="/v1/query", content=b" " * 300_000)
    unknown = refused(client, 404, path="/v1/query", content=json.dumps({"sha256": "0" * 64}))
    assert unknown == f"the image with sha256 {'0' * 16}... is not remembered; send it again to /v1/predict"


def test_an_unknown_bundle_is_named_with_the_nearest(client: TestClient, jpeg: bytes) -> None:
    assert (
        refused(client, 404, content=jpeg, params=asked(bundle="smal"))
        == "unknown bundle 'smal'; nearest: small; allowed: small"
    )
    assert client.get("/v1/labels?bundle=../small").status_code == 404
    assert client.get("/v1/labels?bundel=small").status_code == 422


@pytest.mark.parametrize(
    "sent",
    [
        {"files": {"picture": b"x"}},
        {"files": {"image": b"x", "options": b"{}"}},
        {"data": {"image": "x"}, "files": {"other": b"x"}},
        {"files": [("image", b"x"), ("image", b"y")]},
        {"files": {"image": b"x"}, "data": {"options": "{}", "more": "1"}},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"no form", "headers": {"content-type": "multipart/mixed; boundary=x"}},
        {"content": b"x", "params": {"option": "{}"}},
        {"files": {"image": b"x"}, "data": {"options": "{}"}, "params": {"options": "{}"}},
    ],
)
def test_a_form_with_other_fields_is_refused(client: TestClient, sent: dict[str, object]) -> None:
    refused(client, 422, **sent)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff\xfe", TOKEN]
)
def test_without_the_token_nothing_is_answered(service: BundleService, jpeg: bytes, header: str | None) -> None:
    client = client_of(service, token=TOKEN)
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    for method, path in (
        ("POST", "/v1/predict"),
        ("POST", "/v1/query"),
        ("GET", "/v1/labels"),
        ("GET", "/metrics"),
        ("GET", "/v1/x"),
    ):
        response = client.request(method, path, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/").status_code == client.get("/healthz").status_code == 200


def test_below_a_prefix_the_token_is_needed_too(service: BundleService, jpeg: bytes) -> None:
    client = client_of(service, token=TOKEN, root_path="/models")
    assert client.post("/models/v1/predict", content=jpeg).status_code == 401
    assert client.get("/models/metrics").status_code == 401
    assert client.get("/models/healthz").status_code == 200
    sent = client.post("/models/v1/predict", content=jpeg, headers={"authorization": f"Bearer {TOKEN}"})
    assert sent.status_code == 200


def test_with_the_token_everything_is_answered(service: BundleService, jpeg: bytes) -> None:
    client = client_of(service, token=TOKEN)
    client.headers["authorization"] = f"bearer {TOKEN}"
    assert client.post("/v1/predict", content=jpeg).status_code == 200
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/page/../../spec.py",
        "/v1/examples/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/examples/../../../etc/passwd",
        "/v1/examples/%2fetc%2fpasswd",
        "/v1/examples/..%5cbundle.json",
        "/v1/examples/bundle.json",
        "/v1/examples/%00",
        "/v1/examples/" + "a" * 5000,
        "/index.html/",
        "//etc/passwd",
        "/v1/../v1/labels/..",
    ],
)
def test_no_path_leads_out_of_what_is_served(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "root:" not in response.text
    assert response.json()["error"]["status"] == 404


def test_methods_that_are_not_served_are_refused(client: TestClient) -> None:
    assert client.get("/v1/predict").status_code == 405
    assert client.delete("/v1/labels").json()["error"]["kind"] == "ServeError"


def test_a_page_from_elsewhere_may_neither_embed_nor_read_this_one(client: TestClient) -> None:
    for path in ("/", "/v1/labels", "/docs", "/nothing"):
        headers = client.get(path, headers={"origin": "http://evil.example"}).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_by_default_only_this_machine_is_listened_to() -> None:
    assert ServeFile(bundles={"a": "b"}).host == "127.0.0.1"
