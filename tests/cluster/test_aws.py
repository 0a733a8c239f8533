"""cluster/gpu.yaml on an AWS that moto's server plays on 127.0.0.1: the account's stack, `ray up`, a spot worker, `ray down`.

ssh and rsync are stand-ins first in PATH: they write down what they were asked, and answer what Ray asks of Docker. Nothing
leaves this machine, and none of the commands that Ray sends to its nodes is run.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.commands import _bootstrap_config

from tests.cluster.files import CLUSTER, ROOT, read_launcher_file
from tests.servers import free_port, wait_for_server

pytest.importorskip("moto.server", reason="needs moto[server] (pip install -e .[dev]) to play AWS")
cfnlint_api = pytest.importorskip("cfnlint.api", reason="needs cfn-lint, which moto[server] brings")

pytestmark = pytest.mark.slow

MY_ADDRESS = "203.0.113.7/32"
TOKEN = "a-token-for-this-test"
MOTOS_IMAGE = "ami-785db401"

STAND_IN = """\
#!/bin/bash
printf '%q ' "${{0##*/}}" "$@" >> {log}; echo >> {log}
case "$*" in
  *ray-bootstrap-*) for word in "$@"; do case "$word" in *ray-bootstrap-*) cp "$word" {bootstrap} ;; esac; done ;;
  *"docker run"*) touch {started} ;;
  *State.Running*) [ -e {started} ] && echo true || echo false ;;
  *Config.Env*) echo '["HOME=/home/ray"]' ;;
  *"printenv HOME"*) echo /home/ray ;;
  *"command -v docker"*) echo /usr/bin/docker ;;
  *".Runtimes"*) echo runc ;;
  *MemAvailable*|*meminfo*) echo 'MemAvailable: 8000000 kB' ;;
esac
exit 0
"""


@dataclass(frozen=True)
class Account:
    """The played AWS account: how a process reaches it, what the stack made, and where the stand-ins write."""

    environment: dict[str, str]
    outputs: dict[str, str]
    folder: Path

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def instances(self) -> list[dict[str, Any]]:
        found = self.client("ec2").describe_instances()["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    def ssh_log(self) -> list[str]:
        return (self.folder / "ssh.log").read_text().splitlines()

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, *arguments]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("aws")
    port = free_port()
    program = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with open(folder / "moto.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log)
    try:
        wait_for_server(server, port)
        yield open_account(folder, f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def open_account(folder: Path, endpoint: str) -> Account:
    """Put the stand-ins and a home folder with a token in place, and create the stack of cluster/aws-account.yaml."""
    for name in ("bin", "tmp"):
        (folder / name).mkdir()
    names = {"log": "ssh.log", "started": "started", "bootstrap": "bootstrap.json"}
    stand_in = STAND_IN.format(**{key: folder / name for key, name in names.items()})
    for name in ("ssh", "rsync", "scp"):
        (folder / "bin" / name).write_text(stand_in)
        (folder / "bin" / name).chmod(0o755)
    token = folder / "home" / ".ray" / "auth" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text(TOKEN)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "COV_"))},
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),  # where `ray up` keeps the completed file for `ray down`
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    account = Account(environment, {}, folder)
    return Account(environment, create_stack(account), folder)


def create_stack(account: Account) -> dict[str, str]:
    ec2, formation = account.client("ec2"), account.client("cloudformation")
    subnet = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1a"]}])["Subnets"][0]
    given = {"SshCidr": MY_ADDRESS, "VpcId": subnet["VpcId"], "SubnetId": subnet["SubnetId"]}
    formation.create_stack(
        StackName="rayprob",
        TemplateBody=(CLUSTER / "aws-account.yaml").read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    outputs = formation.describe_stacks(StackName="rayprob")["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


@pytest.fixture(scope="module")
def edited(account: Account) -> Path:
    """cluster/gpu.yaml with every EDIT done as its comments say, and with the one machine image that moto knows."""
    text = (CLUSTER / "gpu.yaml").read_text()
    for mark, output in (("sg-EDIT", "SecurityGroupId"), ("subnet-EDIT", "SubnetId"), ("fs-EDIT", "FileSystemId")):
        assert mark in text
        text = text.replace(mark, account.outputs[output])
    text = re.sub(r"resolve:ssm:\S+", MOTOS_IMAGE, text)
    path = account.folder / "gpu.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def up(account: Account, edited: Path) -> Iterator[Account]:
    """The account after `ray up`; `ray down` follows whatever the tests find."""
    done = account.ray("up", "-y", str(edited))
    try:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield account
    finally:
        if any(instance["State"]["Name"] != "terminated" for instance in account.instances()):
            account.ray("down", "-y", str(edited))


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def open_to(group: dict[str, Any]) -> set[tuple[Any, Any, str]]:
    """Return (first port, last port, who) of every way in."""
    return {
        (rule.get("FromPort"), rule.get("ToPort"), who)
        for rule in group["IpPermissions"]
        for who in (
            *(part["CidrIp"] for part in rule["IpRanges"]),
            *(part["CidrIpv6"] for part in rule.get("Ipv6Ranges", [])),
            *(part["GroupId"] for part in rule["UserIdGroupPairs"]),
        )
    }


def test_the_account_template_has_no_fault_that_cfn_lint_knows() -> None:
    template = (CLUSTER / "aws-account.yaml").read_text()
    assert faults(template) == []
    assert faults(template.replace("GroupDescription", "GroupDescripton"))


def faults(template: str) -> list[str]:
    return [str(match) for match in cfnlint_api.lint_all(template) if not match.rule.id.startswith("I")]  # I: for information


def test_the_stack_refuses_ssh_from_everywhere() -> None:
    pattern = re.search(r"AllowedPattern: (\S+)", (CLUSTER / "aws-account.yaml").read_text())
    assert pattern
    assert re.match(pattern[1], MY_ADDRESS)
    assert not re.match(pattern[1], "0.0.0.0/0")
    assert not re.match(pattern[1], "203.0.113.7")


def test_the_unedited_file_starts_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOME", *(name for name in account.environment if name.startswith("AWS_"))):
        monkeypatch.setenv(name, account.environment[name])
    # The first thing that `ray up` does, without the list of all instance types, which takes seconds.
    monkeypatch.setattr("ray.autoscaler._private.aws.node_provider.list_ec2_instances", lambda *region: [])
    with pytest.raises(AssertionError):
        _bootstrap_config(read_launcher_file("gpu"), no_config_cache=True)
    assert "any of the configured SecurityGroupIds" in capsys.readouterr().err
    assert account.instances() == []


def test_ray_up_starts_one_head_as_the_file_says(up: Account) -> None:
    (head,) = up.instances()
    assert (head["InstanceType"], head["State"]["Name"]) == ("m6i.large", "running")
    assert tags(head)["ray-node-type"] == "head"
    assert tags(head)["ray-node-status"] == "up-to-date"
    assert head["IamInstanceProfile"]["Arn"].endswith(":instance-profile/rayprob-head")
    assert [group["GroupId"] for group in head["SecurityGroups"]] == [up.outputs["SecurityGroupId"]]
    assert head["SubnetId"] == up.outputs["SubnetId"]


def test_ssh_from_one_range_is_the_only_way_in(up: Account) -> None:
    groups = up.client("ec2").describe_security_groups()["SecurityGroups"]
    ours = next(group for group in groups if group["GroupId"] == up.outputs["SecurityGroupId"])
    assert {(port, who) for port, _, who in open_to(ours)} - {(22, MY_ADDRESS)} <= {
        (None, ours["GroupId"]),
        (-1, ours["GroupId"]),
    }
    assert (22, 22, MY_ADDRESS) in open_to(ours)
    # Ray made no group of its own, which would be open to SSH from everywhere.
    assert not [group["GroupName"] for group in groups if "ray" in group["GroupName"] and group is not ours]
    assert "0.0.0.0/0" not in {who for group in groups for *_, who in open_to(group)}


def test_the_head_is_sent_its_container_its_packages_and_its_token(up: Account) -> None:
    log = up.ssh_log()
    assert any("cluster/node/" in line and "rayprob-node" in line for line in log if line.startswith("rsync"))
    assert any(".ray/auth/" in line and "rayprob-token" in line for line in log if line.startswith("rsync"))
    (run,) = [line for line in log if "docker" in line and "--shm-size" in line]
    assert "rayproject/ray:2.60.0-py311-cpu" in run
    for mount in ("/mnt/shared:/mnt/shared", "rayprob-token:/home/ray/rayprob-token", "rayprob-node:/home/ray/rayprob-node"):
        assert mount in run
    assert TOKEN not in "".join(log)


def test_the_head_hands_token_and_packages_on_to_each_worker(up: Account) -> None:
    config = json.loads((up.folder / "bootstrap.json").read_text())  # by which the autoscaler on the head works
    assert {"~/rayprob-token": "~/rayprob-token", "~/rayprob-node": "~/rayprob-node"}.items() <= config["file_mounts"].items()
    assert "bash ~/rayprob-node/setup.sh" in " ".join(config["setup_commands"])
    (start,) = [command for command in config["worker_start_ray_commands"] if "ray start" in command]
    assert "RAY_AUTH_MODE=token" in start
    assert TOKEN not in json.dumps(config)


def test_the_head_runs_mount_setup_and_start_in_this_order(up: Account) -> None:
    log = [" ".join(shlex.split(line)).replace("\\", "") for line in up.ssh_log()]
    steps = [
        f"{up.outputs['FileSystemId']}.efs.us-east-1",
        "--shm-size",
        "bash /home/ray/rayprob-node/setup.sh",
        "ray stop",
        "ray start --head",
    ]
    places = [next(number for number, line in enumerate(log) if step in line) for step in steps]
    assert places == sorted(places)
    start = log[places[-1]]
    assert "RAY_AUTH_MODE=token" in start
    assert "--dashboard-host=127.0.0.1" in start


def test_the_autoscaler_on_the_head_can_start_spot_and_on_demand_workers(up: Account, edited: Path) -> None:
    # The same code as on the head, where the autoscaler runs it with the file that `ray up` has completed.
    program = """
import sys, yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
config = _bootstrap_config(yaml.safe_load(open(sys.argv[1])))
provider = _get_node_provider(config["provider"], config["cluster_name"])
for kind in ("gpu_spot", "gpu_on_demand"):
    node_type = config["available_node_types"][kind]
    print(kind, node_type["resources"])
    named = {"ray-node-type": "worker", "ray-user-node-type": kind, "ray-node-name": kind}
    provider.create_node(node_type["node_config"], named, 1)
"""
    command = [sys.executable, "-c", program, str(edited)]
    done = subprocess.run(command, env=up.environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for kind in ("gpu_spot", "gpu_on_demand"):
        (resources,) = re.findall(rf"^{kind} (.*)$", done.stdout, re.M)
        assert {"CPU": 48, "GPU": 4}.items() <= yaml.safe_load(resources).items()
    workers = {tags(one)["ray-user-node-type"]: one for one in up.instances() if tags(one)["ray-node-type"] == "worker"}
    assert workers["gpu_spot"]["InstanceLifecycle"] == "spot"
    assert workers["gpu_on_demand"].get("InstanceLifecycle") != "spot"
    for worker in workers.values():
        assert worker["InstanceType"] == "g5.12xlarge"
        assert worker["IamInstanceProfile"]["Arn"].endswith(":instance-profile/rayprob-worker")
        assert [group["GroupId"] for group in worker["SecurityGroups"]] == [up.outputs["SecurityGroupId"]]


def test_ray_down_ends_every_node(up: Account, edited: Path) -> None:
    assert {instance["State"]["Name"] for instance in up.instances()} == {"running"}
    done = up.ray("down", "-y", str(edited))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert {instance["State"]["Name"] for instance in up.instances()} == {"terminated"}
