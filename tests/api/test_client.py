"""`rp.Client` answers as `Model.predict` does, and raises the same errors, over HTTP."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import rayprob as rp
from rayprob.errors import LabelError, QueryError, SampleError, ServeError, StorageError, UnknownLabel
from rayprob.runs.bundle import Bundle
from rayprob.serve.app import Front, make_app
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.small import sampled_like
from tests.serve.here import TOKEN, Here
from tests.serve.live import listening

QUERIES = ["P(fork & knife)", "P(cat | dog)"]


@pytest.fixture(scope="module")
def here(bundle_path: str) -> Here:
    return Here(BundleService("small", bundle_path, Limits(seen_images=50)))


@pytest.fixture(scope="module")
def url(here: Here) -> Iterator[str]:
    with listening(make_app(Front({"small": here}, token=TOKEN, page={}))) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> rp.Client:
    return rp.Client(url, token=TOKEN)


def test_every_field_is_that_of_the_model(client: rp.Client, model: rp.Model) -> None:
    asked = {"queries": QUERIES, "evidence": {"dining table": True}, "rule": "recall@0.1"}
    ours, theirs = model.predict(photo(3), **asked), client.predict(photo(3), **asked)  # type: ignore[call-overload]
    assert theirs.to_dict() == ours.to_dict()
    for field in ("name", "label_set", "rule", "guarantee", "notes", "evidence", "marginals"):
        assert getattr(theirs, field) == getattr(ours, field), field
    assert theirs.answers == pytest.approx(ours.answers, abs=1e-6)
    assert theirs.entropy == pytest.approx(ours.entropy, abs=1e-5)
    assert theirs.marginals["fork"] == ours.marginals["fork"]
    assert (client.labels, client.rules, client.guarantees) == (model.labels, model.rules, model.guarantees)
    assert repr(theirs) == repr(ours)
    with pytest.raises(UnknownLabel, match="unknown label 'frok'; nearest: fork"):
        theirs.marginals["frok"]


def test_further_questions_are_answered_without_another_forward_pass(client: rp.Client, model: rp.Model, here: Here) -> None:
    ours, theirs = model.predict(photo(4)), client.predict(photo(4))
    passes = here.passes
    for query in ("P(person | !cat)", "P(count >= 3)"):
        assert theirs.prob(query) == pytest.approx(ours.prob(query), abs=1e-6)
        assert theirs.standard_error(query) == 0
    assert [line.labels for line in theirs.top_sets(3)] == [line.labels for line in ours.top_sets(3)]
    ours, theirs = ours.given({"dog": True}), theirs.given({"dog": True})
    assert theirs.to_dict() == ours.to_dict()
    assert theirs.given({"dog": False}).marginals["dog"] == 0
    assert theirs.prob("P(fork | knife)") == pytest.approx(ours.prob("P(fork | knife)"), abs=1e-6)
    assert here.passes == passes


def test_an_image_that_the_server_has_forgotten_is_sent_again(client: rp.Client, here: Here) -> None:
    answer = client.predict(photo(5))
    before, passes = answer.prob("P(cat)"), here.passes
    for place in range(60, 112):
        client.predict(photo(place), top=1)
    assert answer.prob("P(cat)") == before
    assert here.passes == passes + 53


def test_images_of_all_kinds_are_sent_unchanged(client: rp.Client, model: rp.Model, tmp_path: Path) -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    path.write_bytes(photo(6))
    for image in (path, str(path), photo(6), pixels_HWC, pixels_HWC / 255.0, pixels_HWC[:, :, 0], Pillow.fromarray(pixels_HWC)):
        assert client.predict(image).marginals == model.predict(image).marginals
    tensor = torch.from_numpy(pixels_HWC).permute(2, 0, 1)
    several = client.predict([path, tensor])
    assert [one.name for one in several] == [str(path), "image"]
    assert several[1].marginals == model.predict(tensor).marginals
    batch = np.stack([pixels_HWC, pixels_HWC[::-1]])
    for images in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), batch[:1]):
        found = client.predict(images)
        assert [one.marginals for one in found] == [model.predict(one).marginals for one in images]
    turned = Pillow.open(path)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    with Pillow.open(tmp_path / "turned.jpg") as opened:
        assert client.predict(opened).marginals == model.predict(opened).marginals


def test_evidence_may_come_from_numpy(client: rp.Client, model: rp.Model) -> None:
    evidence = {"cat": np.True_, "dog": np.False_}
    ours, theirs = (one.predict(photo(1), evidence=evidence) for one in (model, client))  # type: ignore[attr-defined]
    assert theirs.evidence == ours.evidence
    assert theirs.marginals == ours.marginals


def test_errors_are_those_of_the_model(client: rp.Client, model: rp.Model) -> None:
    for error, asked in (
        (QueryError, {"queries": "P(cat & dgo)"}),
        (LabelError, {"evidence": {"kat": True}}),
        (QueryError, {"rule": "label_XX"}),
        (QueryError, {"evidence": {"cat": "maybe"}}),
    ):
        with pytest.raises(error) as ours:
            model.predict(photo(1), **asked)  # type: ignore[call-overload]
        with pytest.raises(error) as theirs:
            client.predict(photo(1), **asked)  # type: ignore[call-overload]
        assert str(theirs.value) == str(ours.value)
    with pytest.raises(QueryError) as raised:
        client.predict(photo(1)).prob("P(cat & dgo)")
    assert raised.value.at == 8
    with pytest.raises(SampleError, match="the image is"):
        client.predict(b"hello")
    with pytest.raises(StorageError):
        client.predict("no-such-file.jpg")
    with pytest.raises(QueryError, match="k must be at least 1; got 0"):
        client.predict(photo(1)).top_sets(0)


def test_a_server_that_refuses_or_does_not_answer_is_named(url: str) -> None:
    with pytest.raises(ServeError, match="this server requires a token; send the header"):
        rp.Client(url).predict(photo(1))
    with pytest.raises(ServeError, match="unknown bundle 'large'; allowed: small"):
        rp.Client(url, token=TOKEN, bundle="large").predict(photo(1))
    with pytest.raises(ServeError, match="'localhost:8000' is not the URL of a server; `rayprob serve` prints it"):
        rp.Client("localhost:8000")
    with pytest.raises(ServeError, match=r"no server answers at http://127.0.0.1:1 \(connection refused\); start one"):
        rp.Client("http://127.0.0.1:1").predict(photo(1))


def test_a_query_without_an_answer_is_refused_with_the_reason_of_the_model(bundle: Bundle, tmp_path: Path) -> None:
    sampled_like(bundle).save(str(tmp_path / "sampled"))
    model, rare = rp.load(str(tmp_path / "sampled")), "P(cat | count >= 6)"
    with listening(
        make_app(Front({"small": Here(BundleService("small", str(tmp_path / "sampled"), Limits()))}, page={}))
    ) as url:
        ours, theirs = model.predict(photo(1)), rp.Client(url).predict(photo(1))
        with pytest.raises(QueryError, match="too improbable to estimate") as refused:
            ours.prob(rare)
        for ask in (theirs.prob, theirs.standard_error):
            with pytest.raises(QueryError) as refused_there:
                ask(rare)
            assert str(refused_there.value) == f"no answer to {rare}: {refused.value}"


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (502, b"<html>"), (404, b"{}"), (500, b'{"error": "no"}'), (500, b"3")]
)
def test_a_server_of_another_kind_is_recognised(status: int, body: bytes) -> None:
    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(ServeError, match=rf"does not answer like `rayprob serve` \(status {status}\); check the URL"):
            rp.Client(f"http://127.0.0.1:{server.server_port}").predict(photo(1))
        server.shutdown()
