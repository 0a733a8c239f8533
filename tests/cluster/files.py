"""Reading cluster/: strict YAML, and the commands that the comments tell a user to run."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHER_FILES = ("gpu", "gcp", "azure", "onprem")
CLOUD_FILES = ("gpu", "gcp", "azure")


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key standing twice in one mapping, where YAML takes the last one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles:
            raise yaml.constructor.ConstructorError(None, None, f"keys stand twice: {doubles}", node.start_mark)
        return super().construct_mapping(node, deep)


def read_launcher_file(name: str) -> dict[str, Any]:
    return yaml.load((CLUSTER / f"{name}.yaml").read_text(), Loader=StrictLoader)


def read_manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.load_all((CLUSTER / "kuberay" / f"{name}.yaml").read_text(), Loader=StrictLoader))


def every_file() -> list[Path]:
    return sorted(path for path in CLUSTER.rglob("*") if path.is_file())


def commands(path: Path, program: str) -> list[list[str]]:
    """Return every command of `program` that a file's comments name, as lists of arguments without the program itself."""
    text = re.sub(r"\\\n# *", "", path.read_text())
    lines = re.findall(rf"^# .*?(?:^|[ (;])({program} [a-z][^`\n]*)$", text, re.M)
    without_shell = [re.split(r" [&>|](?: |$)|\)$", line)[0] for line in lines]
    # A sentence may begin like a command; every command here names a path, an address or a flag.
    return [shlex.split(line)[1:] for line in without_shell if re.search(r"[/=]| --", line)]
