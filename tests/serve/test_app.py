"""What is served: the answers of `rayprob predict`, follow-up questions without a forward pass, and what a bundle is."""

import json

from starlette.testclient import TestClient

import rayprob as rp

QUESTION = {"queries": ["P(fork & knife)", "P(cat | dog)"], "evidence": {"dining table": True}, "rule": "recall@0.1", "top": 3}
OWN = {"sha256", "bundle", "fingerprint", "explanations"}


def ask(client: TestClient, content: bytes, **options: object) -> dict[str, object]:
    response = client.post("/v1/predict", params={"options": json.dumps(options)}, content=content)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_an_answer_is_that_of_predict(client: TestClient, bundle_path: str, jpeg: bytes) -> None:
    local = rp.load(bundle_path).predict(jpeg, queries=QUESTION["queries"], evidence=QUESTION["evidence"], rule="recall@0.1")
    found = ask(client, jpeg, **{**QUESTION, "top": 5})
    assert set(found) - set(local.to_dict()) == OWN
    assert {key: found[key] for key in found if key not in OWN} == json.loads(json.dumps(local.to_dict()))
