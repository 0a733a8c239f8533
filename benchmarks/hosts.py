"""Test hosts on one Linux machine, for root: sets of namespaces (network, processes, mounts, name), each with an sshd.

The hosts are 198.51.100.1 and up, on one bridge; this machine is 192.0.2.254, outside the hosts' own network. Both ranges
are reserved for documentation, so they are not in real networks. Needs iproute2, util-linux, openssh-server, rsync and ufw.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NETWORK, HERE = "198.51.100", "192.0.2.254"
BRIDGE = "rayprob-br"
PROGRAMS = ("ip", "unshare", "sshd", "ssh", "ssh-keygen", "rsync", "ufw", "ss")
SSHD = """\
Port 22
HostKey {hosts}/host_key
AuthorizedKeysFile {home}/.ssh/authorized_keys
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
PidFile none
MaxStartups 100
MaxSessions 100
"""
# Every host has its own home, Ray folder, firewall rules and shared memory. Everything else is this machine's.
INIT = """\
set -e
hostname {name}
mount --bind {folder}/passwd /etc/passwd
mkdir -p /tmp/ray && mount --bind {folder}/ray /tmp/ray
mount --bind {folder}/ufw /etc/ufw
mount -t tmpfs -o size=6g tmpfs /dev/shm
mount -t tmpfs tmpfs /mnt && mkdir /mnt/shared && mount --bind {hosts}/shared /mnt/shared
exec {sshd} -D -e -f {folder}/sshd_config
"""


@dataclass(frozen=True)
class Hosts:
    """The hosts' folder, which also contains their SSH key."""

    folder: Path
    count: int

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def address(self, number: int) -> str:
        return f"{NETWORK}.{number + 1}"

    def run(self, number: int, command: str) -> str:
        """Return the output of a command on a host, over SSH. Raises CalledProcessError."""
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
        done = subprocess.run(
            ["ssh", "-i", str(self.key), *options, f"root@{self.address(number)}", command],
            check=True,
            text=True,
            capture_output=True,
            timeout=120,
        )
        return done.stdout

    def cut(self, number: int) -> None:
        """Disconnect a host from the network."""
        _ip("link", "set", _link(number), "down")

    def mend(self, number: int) -> None:
        """Reconnect a host to the network."""
        _ip("link", "set", _link(number), "up")


@contextmanager
def namespaces(count: int, folder: Path) -> Iterator[Hosts]:
    """Create hosts, and remove them afterwards. Raises SystemExit that names what is missing."""
    _check()
    hosts = Hosts(folder, count)
    children: list[subprocess.Popen[bytes]] = []
    _ip("link", "add", BRIDGE, "type", "bridge")  # fails if other test hosts are up
    try:
        _network()
        for name in ("key", "host_key"):
            _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        (folder / "shared").mkdir()
        for number in range(count):
            children.append(_start(hosts, number))
        for number in range(count):
            _wait_for_ssh(hosts, number)
        yield hosts
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # all processes of a host end with its first one
            child.wait()
        for number in range(count):
            _ip("netns", "del", _name(number), is_needed=False)
            _ip("link", "del", _link(number), is_needed=False)
        _ip("link", "del", BRIDGE, is_needed=False)


def _check() -> None:
    if sys.platform != "linux" or os.geteuid():
        raise SystemExit("test hosts are Linux namespaces, which only root can create; run it as root on Linux")
    missing = [name for name in PROGRAMS if not _which(name)]
    if missing:
        raise SystemExit(
            f"missing: {', '.join(missing)}; on Debian: apt-get install iproute2 util-linux openssh-server rsync ufw iptables"
        )


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _network() -> None:
    _ip("addr", "add", f"{HERE}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    _ip("route", "add", f"{NETWORK}.0/28", "dev", BRIDGE, "src", HERE)


def _start(hosts: Hosts, number: int) -> subprocess.Popen[bytes]:
    name, link, folder = _name(number), _link(number), hosts.folder / _name(number)
    _ip("netns", "add", name)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", link, "master", BRIDGE, "up")
    _ip("-n", name, "addr", "add", f"{hosts.address(number)}/28", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "route", "add", f"{HERE}/32", "dev", "eth0")
    _ip("-n", name, "route", "add", "default", "via", HERE)  # Ray identifies a host by the address of its default route
    home = folder / "home"
    for path in (home / ".ssh", folder / "ray"):
        path.mkdir(parents=True)
    shutil.copytree("/etc/ufw", folder / "ufw", symlinks=True)
    shutil.copy(hosts.folder / "key.pub", home / ".ssh" / "authorized_keys")
    passwd = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    (folder / "passwd").write_text("\n".join([f"root:x:0:0:root:{home}:/bin/bash", *passwd]) + "\n")
    (folder / "sshd_config").write_text(SSHD.format(hosts=hosts.folder, home=home))
    Path("/run/sshd").mkdir(exist_ok=True)
    (home / "rayprob-venv").symlink_to(sys.prefix)
    words = {"name": name, "folder": folder, "hosts": hosts.folder, "sshd": _which("sshd")}
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "--uts", "--kill-child", "bash", "-c"]
    with open(folder / "sshd.log", "wb") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *command, INIT.format(**words)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_for_ssh(hosts: Hosts, number: int) -> None:
    until_s = time.monotonic() + 20
    while True:
        try:
            hosts.run(number, "true")
            return
        except subprocess.CalledProcessError as error:
            if time.monotonic() > until_s:
                log = (hosts.folder / _name(number) / "sshd.log").read_text()
                raise SystemExit(f"host {number} does not answer: {error.stderr}{log}") from error
            time.sleep(0.3)


def _name(number: int) -> str:
    return f"rayprob-h{number}"


def _link(number: int) -> str:
    return f"rpb-h{number}"


def _ip(*arguments: str, is_needed: bool = True) -> None:
    _quietly("ip", *arguments, is_needed=is_needed)


def _quietly(*command: str | Sequence[str], is_needed: bool = True) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode and is_needed:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
