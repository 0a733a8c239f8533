"""What is served: the answers of `rayprob predict`, follow-up questions without a forward pass, and what a bundle is."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

import rayprob as rp
from rayprob.config import strict_yaml
from rayprob.data.manifest.dataset import Dataset
from rayprob.images.header import measure
from rayprob.runs.bundle import Bundle
from rayprob.runs.card import read_card
from rayprob.runs.paths import RunFolder
from rayprob.serve.generation import Generation
from rayprob.serve.service import BundleService
from rayprob.serve.spec import Limits
from tests.loader.tiny import photo
from tests.predict.small import NAMES, make_bundle
from tests.serve.here import Here, client_of
from tests.train.conftest import MakeRun

QUERIES = ["P(fork & knife)", "P(cat | dog)"]
EVIDENCE = {"dining table": True}
OWN = {"sha256", "bundle", "fingerprint", "explanations"}


def ask(client: TestClient, content: bytes, **options: object) -> dict[str, object]:
    response = client.post("/v1/predict", params={"options": json.dumps(options)}, content=content)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_an_answer_is_that_of_predict(client: TestClient, bundle_path: str, jpeg: bytes) -> None:
    local = rp.load(bundle_path).predict(jpeg, queries=QUERIES, evidence=EVIDENCE, rule="recall@0.1")
    found = ask(client, jpeg, queries=QUERIES, evidence=EVIDENCE, rule="recall@0.1", marginals=True)
    assert found.pop("marginals") == local.marginals_L.tolist()
    own = {key: found.pop(key) for key in OWN}
    assert found == json.loads(json.dumps(local.to_dict()))
    assert own["sha256"] == hashlib.sha256(jpeg).hexdigest()
    assert (own["bundle"], own["explanations"]) == ("small", None)


def test_a_form_is_answered_like_bytes(client: TestClient, jpeg: bytes) -> None:
    plain = ask(client, jpeg, top=2)
    form = client.post("/v1/predict", files={"image": ("a.jpg", jpeg, "image/jpeg")}, data={"options": '{"top": 2}'})
    in_url = client.post("/v1/predict", files={"image": jpeg}, params={"options": '{"top": 2}'})
    assert form.json() == in_url.json() == plain


def test_a_further_question_takes_no_forward_pass_and_answers_like_the_first(service: BundleService, jpeg: bytes) -> None:
    here = Here(service)
    client = client_of(here)
    first = ask(client, photo(11), queries=QUERIES, evidence=EVIDENCE, top=3)
    ask(client, photo(11))
    asked = {"sha256": first["sha256"], "queries": QUERIES, "evidence": EVIDENCE, "top": 3}
    again = client.post("/v1/query", json=asked)
    assert again.json() == first
    assert here.passes == 1
    counted = client.get("/metrics").text
    assert 'rayprob_images_total{bundle="small"} 1.0' in counted
    assert 'rayprob_remembered_images_total{bundle="small"} 2.0' in counted
    assert 'rayprob_batch_images_count{bundle="small"} 1.0' in counted
    assert 'rayprob_requests_total{route="/v1/predict",status="200"} 2.0' in counted


def test_the_images_used_last_are_remembered(bundle_path: str) -> None:
    here = Here(BundleService("small", bundle_path, Limits(seen_images=2)))
    client = client_of(here)
    sums = [ask(client, photo(place))["sha256"] for place in (0, 1)]
    assert client.post("/v1/query", json={"sha256": sums[0]}).status_code == 200
    ask(client, photo(2))
    assert [client.post("/v1/query", json={"sha256": sum_}).status_code for sum_ in sums] == [200, 404]
    assert len(here.service.generation.seen) == 2


def test_what_is_remembered_is_bounded_in_bytes(bundle_path: str) -> None:
    here = Here(BundleService("small", bundle_path, Limits(seen_bytes=len(photo(0)) + 600)))
    client = client_of(here)
    for place in (0, 1, 2):
        ask(client, photo(place))
        assert len(here.service.generation.seen) == 1
    nothing = Here(BundleService("small", bundle_path, Limits(seen_bytes=100)))
    ask(client_of(nothing), photo(0))
    assert len(nothing.service.generation.seen) == 0


def test_labels_rules_and_the_bundle_are_described(client: TestClient, bundle: Bundle) -> None:
    labels = client.get("/v1/labels").json()
    assert (labels["bundle"], labels["labels"], labels["default_rule"]) == ("small", list(NAMES), "label_OF1")
    assert [rule["name"] for rule in labels["rules"]] == list(bundle.rules)
    promised = {rule["name"]: rule["guarantee"] for rule in labels["rules"]}
    assert str(promised["recall@0.1"]).startswith("misses at most 10 %")
    cuts = {rule["name"]: rule["thresholds"] for rule in labels["rules"]}
    assert cuts["label_OF1"] == bundle.thresholds["label_OF1"].values_L.tolist()
    assert cuts["recall@0.1"] == bundle.guarantees["0.1"].threshold
    assert cuts["best_F1"] is None
    card = client.get("/v1/bundle?bundle=small").json()
    assert (card["bundle"], card["bundles"], card["model"]["backbone"]) == ("small", ["small"], "squeezenet1_1")
    assert card["format"] == "rayprob card"
    assert client.get("/healthz").json() == {"status": "ok"}


def test_several_bundles_answer_by_name_and_the_first_one_by_default(service: BundleService, tmp_path: Path) -> None:
    other = make_bundle(2, {"name": "bernoulli"})
    other.save(str(tmp_path / "bundle"))
    client = client_of(service, BundleService("other", str(tmp_path / "bundle"), Limits()))
    assert ask(client, photo(1))["bundle"] == "small"
    found = ask(client, photo(1), bundle="other")
    assert found["bundle"] == "other"
    assert found["fingerprint"] != ask(client, photo(1))["fingerprint"]
    assert client.get("/v1/bundle").json()["bundles"] == ["small", "other"]


def test_a_bundles_examples_are_served_by_name(tmp_path: Path, bundle: Bundle) -> None:
    bundle.save(str(tmp_path / "bundle"))
    examples = tmp_path / "bundle" / "examples"
    examples.mkdir()
    (examples / "a photo.jpg").write_bytes(photo(1))
    (examples / "notes.txt").write_text("not shown")
    (examples / "page.png").write_text("<script>")
    client = client_of(BundleService("small", str(tmp_path / "bundle"), Limits()))
    found = client.get("/v1/examples").json()
    assert found[0] == {"name": "a photo.jpg", "url": "v1/examples/a%20photo.jpg?bundle=small"}
    sent = client.get("/" + found[0]["url"])
    assert (sent.content, sent.headers["content-type"]) == (photo(1), "image/jpeg")
    assert [client.get(f"/v1/examples/{name}").status_code for name in ("page.png", "notes.txt")] == [404, 404]


def test_a_run_offers_images_of_its_dataset_to_try(tmp_path: Path, bundle: Bundle, tiny: str, make_run: MakeRun) -> None:
    run = RunFolder(str(tmp_path))
    bundle.save(run.bundle)
    Path(run.run_file).write_text(strict_yaml.dump(make_run(tmp_path).model_dump(mode="json")))
    services = [BundleService("small", str(tmp_path), Limits(), most_of_dataset=most) for most in (3, 0)]
    first, _, last = client_of(services[0]).get("/v1/examples").json()
    val = Dataset.open(tiny).split("val")
    assert (first["name"], last["name"]) == (val.sample(0).key, val.sample(len(val) - 1).key)
    sent = client_of(services[0]).get("/" + first["url"])
    assert (measure(sent.content).width_px, sent.headers["content-type"]) == (48, "image/jpeg")
    assert client_of(services[1]).get("/v1/examples").json() == []


def test_a_bundle_without_examples_has_an_empty_list(client: TestClient) -> None:
    assert client.get("/v1/examples").json() == []


def test_a_changed_bundle_is_loaded_and_a_damaged_one_is_not(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bundle"
    bundle.save(str(folder))
    service = BundleService("small", str(folder), Limits())
    client = client_of(service)
    before = ask(client, photo(1))
    assert not service.reload()
    make_bundle(5, {"name": "bernoulli"}).save(str(folder))
    assert service.reload()
    after = ask(client, photo(1))
    assert after["fingerprint"] != before["fingerprint"]
    assert after["labels"] != before["labels"]
    assert client.post("/v1/query", json={"sha256": before["sha256"]}).json()["fingerprint"] == after["fingerprint"]
    (folder / "bundle.json").write_text("{}")
    assert not service.reload()
    assert not service.reload()
    state = service.state()
    assert (state["fingerprint"], "version None" in state["fault"]) == (after["fingerprint"], True)
    (folder / "bundle.json").unlink()
    assert not service.reload()
    assert ask(client, photo(1)) == after
    assert sum("is not loaded" in message for message in caplog.messages) == 2


def test_a_card_that_is_written_after_its_bundle_is_told(bundle: Bundle, tmp_path: Path) -> None:
    """As `rayprob calibrate` and `evaluate` write them, the server may load the bundle in between."""
    folder = tmp_path / "bundle"
    bundle.save(str(folder))
    service = BundleService("small", str(folder), Limits())
    client = client_of(service)
    assert client.get("/v1/bundle").json()["numbers"] == []
    card = read_card(str(folder)) | {"numbers": ["of an evaluation"]}
    (folder / "card.json").write_text(json.dumps(card))
    assert client.get("/v1/bundle").json()["numbers"] == ["of an evaluation"]
    (folder / "card.json").write_text(json.dumps(card | {"bundle": "another"}))
    assert client.get("/v1/bundle").json()["numbers"] == []


def test_whatever_keeps_a_bundle_from_being_loaded_leaves_the_one_before(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(str(tmp_path))
    service = BundleService("small", str(tmp_path), Limits())

    def fails(*_: object) -> Generation:
        raise torch.OutOfMemoryError("CUDA out of memory")

    make_bundle(5, {"name": "bernoulli"}).save(str(tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr(Generation, "load", fails)
        assert not service.reload()
        assert service.state()["fault"] == "CUDA out of memory"
    assert service.reload()


def test_the_page_and_the_docs_need_no_network(client: TestClient) -> None:
    assert client.get("/").headers["content-type"] == "text/html; charset=utf-8"
    docs = client.get("/docs").text
    assert "/v1/predict" in docs
    assert "http" not in docs.replace("http://www.w3.org", "")
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/query", "/v1/labels", "/v1/bundle", "/v1/examples", "/healthz", "/metrics"} <= set(paths)


def test_what_a_library_raises_becomes_a_500_without_its_message(
    service: BundleService, jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Here):
        async def computed(self, waiting: object) -> object:  # type: ignore[override]
            raise RuntimeError("secret of a library")

    response = client_of(Broken(service)).post("/v1/predict", content=photo(77))
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the server failed; its log has the reason"
    assert any("secret of a library" in message for message in caplog.messages)


def test_labels_are_explained_by_the_maps_of_the_model(client: TestClient, bundle_path: str, jpeg: bytes) -> None:
    model = rp.load(bundle_path)
    asked = {"explain": ["cat"], "explain_method": "gradcam"}
    (found,) = ask(client, jpeg, **asked)["explanations"]  # type: ignore[misc]
    (ours,) = model.explain(jpeg, "cat", "gradcam")
    assert found == json.loads(json.dumps(ours.to_dict()))
    again = client.post("/v1/query", json={"sha256": hashlib.sha256(jpeg).hexdigest(), "evidence": {"dog": True}, **asked})
    assert again.json()["explanations"] == [found]
    chosen = ask(client, jpeg, explain=True, explain_method="gradcam")["explanations"]
    labels = [one.label for one in model.predict(jpeg).maps(method="gradcam")]
    assert [one["label"] for one in chosen] == labels  # type: ignore[index]
    wrong = client.post("/v1/predict", content=jpeg, params={"options": '{"explain": ["kat"]}'})
    assert (wrong.status_code, wrong.json()["error"]["kind"]) == (422, "UnknownLabel")
