"""KubeRay manifests: against fields read from KubeRay's definitions, and against these themselves where they are at hand.

RAYPROB_KUBERAY_CRDS=/path/to/kuberay/ray-operator/config/crd/bases turns the second check on.
"""

import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.files import CLUSTER, ROOT, read_manifests

# From apis/ray/v1 of KubeRay 1.5; a pod template (core v1) is not looked into.
TEMPLATE: dict[str, Any] = {}
GROUP = {"rayStartParams": str, "template": TEMPLATE}
CLUSTER_SPEC: dict[str, Any] = {
    "rayVersion": str,
    "authOptions": {"mode": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"version": str, "idleTimeoutSeconds": int},
    "headGroupSpec": GROUP,
    "workerGroupSpecs": [{"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, **GROUP}],
}
JOB_SPEC: dict[str, Any] = {
    "entrypoint": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "runtimeEnvYAML": str,
    "rayClusterSpec": CLUSTER_SPEC,
}
SERVICE_SPEC: dict[str, Any] = {"serveConfigV2": str, "rayClusterConfig": CLUSTER_SPEC}
SPECS = {"RayCluster": CLUSTER_SPEC, "RayJob": JOB_SPEC, "RayService": SERVICE_SPEC}
RAY_FILES = ("rayjob", "raycluster", "rayservice")
GPUS_PER_WORKER = {"rayjob": "4", "raycluster": "4", "rayservice": "1"}
by_file = pytest.mark.parametrize("name", RAY_FILES)


def faults(value: Any, allowed: Any, path: str) -> list[str]:
    """Return the paths of fields that are unknown or of another type."""
    if allowed is TEMPLATE:
        return []
    if isinstance(allowed, list):
        return [fault for number, part in enumerate(value) for fault in faults(part, allowed[0], f"{path}[{number}]")]
    if isinstance(allowed, dict):
        unknown = [f"{path}.{key}" for key in value if key not in allowed]
        return unknown + [
            fault for key in value if key in allowed for fault in faults(value[key], allowed[key], f"{path}.{key}")
        ]
    if path.endswith("rayStartParams"):
        return [f"{path}.{key}" for key, part in value.items() if type(part) is not str]
    return [] if type(value) is allowed else [path]


def cluster_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = read_manifests(name)[0]["spec"]
    return next((spec[key] for key in ("rayClusterSpec", "rayClusterConfig") if key in spec), spec)


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods(name: str) -> Iterator[dict[str, Any]]:
    for group in groups(cluster_spec(name)):
        yield group["template"]["spec"]


@by_file
def test_kuberay_knows_every_field(name: str) -> None:
    (manifest,) = read_manifests(name)
    assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["apiVersion"] == "ray.io/v1"
    assert faults(manifest["spec"], SPECS[manifest["kind"]], "spec") == []


def test_unknown_fields_and_numbers_for_strings_are_found() -> None:
    spec = copy.deepcopy(cluster_spec("raycluster"))
    spec["workerGroupSpecs"][0]["minReplica"] = 1
    spec["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    found = faults(spec, CLUSTER_SPEC, "spec")
    assert set(found) == {"spec.workerGroupSpecs[0].minReplica", "spec.headGroupSpec.rayStartParams.num-cpus"}


@by_file
def test_kuberays_own_definitions_accept_the_manifest(name: str) -> None:
    folder = os.environ.get("RAYPROB_KUBERAY_CRDS")
    if not folder:
        pytest.skip("needs KubeRay's definitions: set RAYPROB_KUBERAY_CRDS to its ray-operator/config/crd/bases")
    (manifest,) = read_manifests(name)
    definition = yaml.safe_load((Path(folder) / f"ray.io_{manifest['kind'].lower()}s.yaml").read_text())
    (schema,) = [version["schema"] for version in definition["spec"]["versions"] if version["name"] == "v1"]
    jsonschema.validate(manifest["spec"], closed(schema["openAPIV3Schema"]["properties"]["spec"]))


def closed(schema: Any) -> Any:
    """Return the schema with unknown fields forbidden, which Kubernetes would drop without a word."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(part) for key, part in schema.items()}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    return parts if open_ended or "properties" not in schema else {**parts, "additionalProperties": False}


@by_file
def test_a_token_guards_every_pod_and_no_worker_lands_on_the_head(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] is True


@by_file
def test_pods_share_a_folder_and_have_shared_memory(name: str) -> None:
    (claim, _) = read_manifests("shared")
    for pod in pods(name):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert volumes[mounts["/mnt/shared"]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


@by_file
def test_only_workers_ask_for_gpus_and_as_many_as_they_are_limited_to(name: str) -> None:
    head, *workers = pods(name)
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    for worker in workers:
        resources = worker["containers"][0]["resources"]
        assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == GPUS_PER_WORKER[name]


def test_the_job_asks_for_no_more_gpus_than_its_cluster_may_have() -> None:
    (job,) = read_manifests("rayjob")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (wanted,) = re.findall(r"placement\.num_workers=(\d+)", job["spec"]["entrypoint"])
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(wanted) <= group["maxReplicas"] * int(limits["nvidia.com/gpu"])
    variables = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert all(type(value) is str for value in variables.values())


def test_only_the_namespace_and_the_operator_reach_ray() -> None:
    (_, policy) = read_manifests("shared")
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    assert all(source.keys() <= {"podSelector", "namespaceSelector"} and source for source in rule["from"])


def test_versions_are_the_pinned_ones() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert {cluster_spec(name)["rayVersion"] for name in RAY_FILES} == {pinned[1]}
    dockerfile = (CLUSTER / "kuberay" / "Dockerfile").read_text()
    assert f"\nFROM rayproject/ray:{pinned[1]}-py311-gpu\n" in dockerfile


def test_the_image_is_built_from_files_that_exist_and_are_let_in() -> None:
    dockerfile = (CLUSTER / "kuberay" / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY --chown=\S+ (.*) \S+$", dockerfile, re.M) for name in line.split()}
    let_in = set(re.findall(r"^!(\S+)$", (CLUSTER / "kuberay" / "Dockerfile.dockerignore").read_text(), re.M))
    assert copied == let_in
    assert not {name for name in copied if not any(ROOT.glob(name))}
