"""The requests in words, for `/docs` and `/openapi.json`."""

from typing import Any

from rayprob.serve.options import Options

SUMMARIES = {
    "/v1/predict": "Answer for an image: POST its bytes, with ?options=JSON, or a form with the fields image and options",
    "/v1/query": "Answer again for an image that was sent before: POST the options and the image's sha256 as JSON",
    "/v1/labels": "The labels of a bundle, and the rules that choose label sets",
    "/v1/bundle": "What a bundle is, and the names of all bundles",
    "/v1/examples": "Images to try",
    "/v1/examples/{name}": "One of these images",
    "/healthz": "Whether every bundle answers",
    "/metrics": "Counts and times in Prometheus' format",
}
_SCHEMA: dict[str, Any] = Options.model_json_schema()
_SHA256 = {"type": "string", "description": "of the image's bytes, as in the answer of /v1/predict"}
_IMAGE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["image"], "properties": {"image": _IMAGE, "options": {"type": "string"}}}
_ASKED = {**_SCHEMA, "required": ["sha256"], "properties": {"sha256": _SHA256, **_SCHEMA["properties"]}}
_IN_URL = {"name": "options", "in": "query", "schema": {"type": "string"}, "description": "JSON as in /v1/query"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/predict": {
        "parameters": [_IN_URL],
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": _IMAGE}, "multipart/form-data": {"schema": _FORM}},
        },
    },
    "/v1/query": {"requestBody": {"required": True, "content": {"application/json": {"schema": _ASKED}}}},
}
