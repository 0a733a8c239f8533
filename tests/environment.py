"""What a developer's shell, or a CI system, must not change in a run of the suite."""

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # child processes take rayprob from here, and not from where it is installed

# Clusters to join, clouds and their credentials, jobs of a scheduler, numbers of threads.
FOREIGN_PREFIXES = ("RAY_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "SLURM_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "LC_")
# torchrun's ranks, proxies before the servers on 127.0.0.1, and what makes typer and rich write colours or wrap elsewhere.
FOREIGN = {
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE"),
    *(f"{kind}_proxy" for kind in ("http", "https", "all", "no")),
    *("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "LANGUAGE", "MPLBACKEND"),
}
OURS = {
    "LANG": "C.UTF-8",
    "TERM": "xterm",
    "COLUMNS": "80",
    "LINES": "24",
    "OMP_NUM_THREADS": "1",  # for child processes too: small tensors on busy cores are slower with more threads
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_worker_niceness": "0",  # Ray's own 15 starves its workers beside other tests
    "RAY_prestart_worker_first_driver": "0",  # seconds of a core at each start, for workers that no test may need
}


def isolate() -> str:
    """Replace what this process and its children inherit by what the suite expects; return the new folder of Ray's sessions.

    Ray's folder is the suite's own: /tmp/ray belongs to the user who started Ray first. It lies directly in /tmp, for a path of
    a socket may have 107 characters.
    """
    for name in list(os.environ):
        if name.startswith(FOREIGN_PREFIXES) or name in FOREIGN or name.lower() in FOREIGN:
            del os.environ[name]
    os.environ.update(OURS)
    # A relative entry would make every working folder of a test a place of modules.
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *given])
    os.umask(0o022)
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="rayprob-tests-", dir="/tmp")
    return os.environ["RAY_TMPDIR"]
