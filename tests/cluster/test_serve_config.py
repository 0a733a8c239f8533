"""Serve configs: Ray's own schema reads them, rayprob reads their arguments, and no request is answered without a token."""

import inspect
import re
from importlib import import_module
from typing import Any

import pytest
import yaml

from rayprob.serve.spec import ServeSpec
from tests.cluster.files import CLUSTER, StrictLoader, read_manifests


def config_of(name: str) -> dict[str, Any]:
    text = (CLUSTER / "serve" / "config.yaml").read_text()
    if name == "rayservice":
        text = read_manifests("rayservice")[0]["spec"]["serveConfigV2"]
    read: dict[str, Any] = yaml.load(text, Loader=StrictLoader)
    return read


both = pytest.mark.parametrize("name", ["config", "rayservice"])


@both
def test_rays_schema_knows_every_key(name: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = config_of(name)
    read = ServeDeploySchema.model_validate(config).model_dump(mode="json")
    assert config.keys() <= ServeDeploySchema.model_fields.keys()
    for part in ("http_options", "logging_config"):
        assert config[part].items() <= read[part].items()
    (application,), (written,) = read["applications"], config["applications"]
    assert written.items() <= application.items()


@both
def test_the_application_is_built_from_these_arguments(name: str) -> None:
    (application,) = config_of(name)["applications"]
    module, _, builder = application["import_path"].partition(":")
    assert list(inspect.signature(getattr(import_module(module), builder)).parameters) == ["args"]
    spec = ServeSpec.parse(application["args"], "args")
    assert spec.token_variable == "RAYPROB_TOKEN"
    assert config_of(name)["http_options"]["request_timeout_s"] > spec.limits.timeout_s


def test_both_files_serve_alike() -> None:
    assert config_of("config") == config_of("rayservice")


def test_the_token_of_the_service_is_a_secret_in_every_pod() -> None:
    (manifest,) = read_manifests("rayservice")
    cluster = manifest["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (variable,) = group["template"]["spec"]["containers"][0]["env"]
        assert variable["name"] == "RAYPROB_TOKEN"
        secret = variable["valueFrom"]["secretKeyRef"]
        header = (CLUSTER / "kuberay" / "rayservice.yaml").read_text()
        assert re.search(rf"create secret generic {secret['name']} --from-literal={secret['key']}=", header)
