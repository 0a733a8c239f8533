"""The files of `ray up`: what Ray's validation sees, what it misses, and what must never be in them."""

import copy
import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import ray
import yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import CLOUD_FILES, CLUSTER, LAUNCHER_FILES, ROOT, StrictLoader, every_file, read_launcher_file
from tests.cluster.node_requirements import node_requirements

PROVIDER_SOURCES = {
    "aws": ("aws.config", "aws.node_provider"),
    "azure": ("_azure.config", "_azure.node_provider"),
    "gcp": ("gcp.config", "gcp.node_provider"),
    "local": ("local.config", "local.node_provider"),
}

# The part of Google's compute API (Instance, v1) that cluster/gcp.yaml uses. Any: a plain value.
GCP_INSTANCE: dict[str, Any] = {
    "machineType": Any,
    "disks": {"boot": Any, "autoDelete": Any, "type": Any, "initializeParams": {"diskSizeGb": Any, "sourceImage": Any}},
    "networkInterfaces": {"subnetwork": Any, "accessConfigs": {"name": Any, "type": Any}},
    "metadata": {"items": {"key": Any, "value": Any}},
    "serviceAccounts": {"email": Any, "scopes": Any},
    "scheduling": {"provisioningModel": Any, "instanceTerminationAction": Any, "onHostMaintenance": Any},
}


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    filled = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    return filled


def node_configs(name: str) -> dict[str, dict[str, Any]]:
    return {kind: node["node_config"] for kind, node in read_launcher_file(name)["available_node_types"].items()}


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = read_launcher_file(name)
    assert prepared(config)["cluster_name"] == config["cluster_name"]
    config["idle_timeout_minute"] = 5
    with pytest.raises(Exception, match=r"idle_timeout_minute\b"):
        prepared(config)


def test_the_local_provider_takes_the_head_and_every_worker() -> None:
    config = _bootstrap_config(read_launcher_file("onprem"), no_config_cache=True)
    hosts = config["provider"]["worker_ips"]
    (kind,) = config["available_node_types"].values()
    assert (kind["min_workers"], kind["max_workers"], config["max_workers"]) == (len(hosts),) * 3
    assert config["head_node_type"] in config["available_node_types"]


def test_a_key_that_stands_twice_is_found() -> None:
    with pytest.raises(yaml.YAMLError, match=r"keys stand twice: \{'a'\}"):
        yaml.load("{a: 1, b: {a: 2}, a: 3}", Loader=StrictLoader)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_rays_provider_reads_every_provider_key(name: str) -> None:
    provider = read_launcher_file(name)["provider"]
    modules = [import_source(part) for part in PROVIDER_SOURCES[provider["type"]]]
    unread = {key for key in provider if key != "type" and not any(f'"{key}"' in source for source in modules)}
    assert not unread, f"Ray never reads provider keys {unread}"


def import_source(part: str) -> str:
    package = Path(inspect.getfile(import_module("ray.autoscaler._private")))
    return package.parent.joinpath(*part.split(".")).with_suffix(".py").read_text()


def test_ec2_knows_every_key_of_the_aws_nodes() -> None:
    for kind, config in node_configs("gpu").items():
        assert unknown_to_ec2(config) == [], kind


def test_a_misspelt_key_of_an_aws_node_is_found() -> None:
    config = {
        "InstancType": "g5.xlarge",
        "InstanceMarketOptions": {"MarketTyp": "spot"},
        "MetadataOptions": {"HttpTokens": "on"},
    }
    assert unknown_to_ec2(config) == ["InstancType", "InstanceMarketOptions.MarketTyp", "MetadataOptions.HttpTokens=on"]


def unknown_to_ec2(config: dict[str, Any]) -> list[str]:
    """Return the keys and enum values of a node_config that EC2's service model does not have."""
    shape = botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    # Ray turns its own SubnetIds into a subnet for each node.
    return unknown_to_shape({key: value for key, value in config.items() if key != "SubnetIds"}, shape, "")


def unknown_to_shape(value: Any, shape: Any, path: str) -> list[str]:
    if shape.type_name == "structure":
        unknown = [f"{path}{key}" for key in value if key not in shape.members]
        known = [(part, shape.members[key], f"{path}{key}.") for key, part in value.items() if key in shape.members]
        return unknown + [fault for part in known for fault in unknown_to_shape(*part)]
    if shape.type_name == "list":
        return [fault for part in value for fault in unknown_to_shape(part, shape.member, path)]
    allowed = getattr(shape, "enum", [])
    # A model lists the instance types that existed when it was made.
    return [f"{path[:-1]}={value}"] if allowed and value not in allowed else []


def test_google_knows_every_key_of_its_nodes() -> None:
    for kind, config in node_configs("gcp").items():
        assert outside(config, GCP_INSTANCE) == [], kind
    assert outside({"scheduling": [{"preemptable": True}], "disk": 1}, GCP_INSTANCE) == ["scheduling.preemptable", "disk"]


def outside(value: Any, allowed: Any, path: str = "") -> list[str]:
    if allowed is Any:
        return []
    if isinstance(value, list):
        return [fault for part in value for fault in outside(part, allowed, path)]
    return [
        fault
        for key, part in value.items()
        for fault in (outside(part, allowed[key], f"{path}{key}.") if key in allowed else [f"{path}{key}"])
    ]


def test_azures_template_takes_every_parameter_of_its_nodes() -> None:
    template = Path(inspect.getfile(import_module("ray.autoscaler._private"))).parent / "_azure" / "azure-vm-template.json"
    parameters = json.loads(template.read_text())["parameters"].keys()
    for kind, config in node_configs("azure").items():
        assert config.keys() == {"azure_arm_parameters"}
        assert config["azure_arm_parameters"].keys() <= parameters, kind


def test_the_azure_head_installs_what_rays_own_azure_head_installs() -> None:
    defaults = Path(inspect.getfile(ray)).parent / "autoscaler" / "azure" / "defaults.yaml"
    rays = " ".join(yaml.safe_load(defaults.read_text())["head_setup_commands"])
    ours = " ".join(read_launcher_file("azure")["head_setup_commands"])
    assert pins(ours) == pins(rays) != {}


def pins(command: str) -> dict[str, str]:
    return dict(re.findall(r"([\w-]+)==([\w.]+)", command))


@pytest.mark.parametrize("path", every_file(), ids=lambda path: str(path.relative_to(CLUSTER)))
def test_nothing_is_open_to_the_world_and_nothing_secret_is_written_down(path: Path) -> None:
    text = path.read_text()
    for opening in ("0.0.0.0/0", "::/0", "LoadBalancer", "NodePort", "hostNetwork", "enableIngress", "provisionPublicIp"):
        assert opening not in text, opening
    if "0.0.0.0" in text:  # rayprob serve, which asks every request for a token
        assert re.search(r"^ +token_variable: RAYPROB_TOKEN$", text, re.MULTILINE)
    assert not re.search(r"\b[0-9a-f]{64}\b|PRIVATE KEY|AKIA[0-9A-Z]{16}", text)


@pytest.mark.parametrize("path", sorted(CLUSTER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_placeholder_says_what_to_write(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        value, _, comment = line.partition("#")
        if "EDIT" in value:
            above = [other.strip() for other in lines[max(0, number - 3) : number]]
            assert "EDIT" in comment or any(other.startswith("# EDIT") for other in above), line


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_starts_with_a_token_and_a_private_dashboard(name: str) -> None:
    config = read_launcher_file(name)
    head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    assert head[0] == worker[0] == "ray stop"
    assert "--dashboard-host=127.0.0.1" in head[-1]
    assert all("export RAY_AUTH_MODE=token" in command for command in (head[-1], worker[-1]))
    assert config["file_mounts"] == {"~/rayprob-node": "cluster/node", "~/rayprob-token": "~/.ray/auth"}
    assert config["setup_commands"][-1] == "bash ~/rayprob-node/setup.sh"


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_no_worker_can_land_on_the_head(name: str) -> None:
    config = read_launcher_file(name)
    if name == "onprem":
        assert "--num-cpus=0" in config["head_start_ray_commands"][-1]
    else:
        head = config["available_node_types"][config["head_node_type"]]
        assert (head["resources"], head["max_workers"]) == ({"CPU": 0}, 0)


@pytest.mark.parametrize("name", CLOUD_FILES)
def test_nodes_share_one_place_and_have_shared_memory(name: str) -> None:
    config = read_launcher_file(name)
    assert "--shm-size=16g" in config["docker"]["run_options"]
    assert "-v /mnt/shared:/mnt/shared" in config["docker"]["run_options"]
    assert any("/mnt/shared" in command and "mount " in command for command in config["initialization_commands"])
    # The object store must fit into shared memory, or Ray moves it to disk.
    sizes = re.findall(
        r"--object-store-memory=(\d+)", " ".join(str(config[f"{part}_start_ray_commands"]) for part in ("head", "worker"))
    )
    assert len(sizes) == 2
    assert all(int(size) < 16 * 2**30 for size in sizes)


def test_the_firewall_of_every_aws_node_is_named() -> None:
    # Where a node type names none, Ray makes a group that is open to SSH from everywhere.
    for kind, config in node_configs("gpu").items():
        assert config["SecurityGroupIds"] == ["sg-EDIT"], kind
        assert config["MetadataOptions"] == {"HttpTokens": "required"}, kind


def test_gcp_nodes_name_their_network_and_azure_nodes_have_no_public_address() -> None:
    assert all("networkInterfaces" in config for config in node_configs("gcp").values())
    assert read_launcher_file("azure")["provider"]["use_internal_ips"] is True
    assert "use_external_head_ip" not in read_launcher_file("azure")["provider"]


def test_gcp_lets_the_user_of_rays_image_read_the_token() -> None:
    from ray.autoscaler.sdk import get_docker_host_mount_location

    config = read_launcher_file("gcp")
    where = f"'{get_docker_host_mount_location(config['cluster_name'])}/~/rayprob-token'"
    assert f"chmod -R go+rX {where}" in config["initialization_commands"]


@pytest.mark.parametrize("name", CLOUD_FILES)
def test_images_carry_the_pinned_ray(name: str) -> None:
    docker = read_launcher_file(name)["docker"]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert docker["head_image"] == f"rayproject/ray:{pinned[1]}-py311-cpu"
    assert docker["worker_image"] == f"rayproject/ray:{pinned[1]}-py311-gpu"


def test_node_requirements_are_the_run_time_part_of_the_constraints() -> None:
    command = "python -m tests.cluster.node_requirements > cluster/node/requirements.txt"
    assert (CLUSTER / "node" / "requirements.txt").read_text() == node_requirements(), f"out of date; run {command}"
