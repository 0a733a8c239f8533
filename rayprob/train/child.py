"""The process of a single-worker run on this machine. `ready.py` starts it, `here.py` supervises it.

It reads its job, one line of JSON, from standard input, and ends when that closes, so it never outlives its driver.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rayprob import plugins
from rayprob.errors import RayprobError
from rayprob.files import storage
from rayprob.loader.order import Place
from rayprob.runs.spec import received
from rayprob.train.faults import fault_text
from rayprob.train.loop import fit


def main() -> None:
    """Read the job, train, and write the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles it and asks for a checkpoint
    line = sys.stdin.buffer.readline()
    if not line:
        return
    job = json.loads(line)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    threading.Thread(target=_show_life, args=(Path(job["pulse"]),), daemon=True).start()
    _write_to(job["log"])
    answer = train(job)
    storage.write_text(job["answer"], json.dumps(answer))


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Return the `outcome`, a `failure` (an error of rayprob's own) or a `fault` (any other exception)."""
    plugins.look_in(job["plugin_folders"])
    try:
        return {"outcome": asdict(fit(received(job["run"]), Place(), _device(job["workers"])))}
    except RayprobError as error:
        return {"failure": {"kind": type(error).__name__, "message": str(error)}}
    except Exception as error:
        traceback.print_exc()
        return {"fault": fault_text(error)}


def _device(workers: dict[str, Any]) -> torch.device:
    """Return the device, with the threads and the one GPU that Ray would give a worker."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(workers["cpus_per_worker"])
        torch.set_num_threads(workers["cpus_per_worker"])
    if not workers["use_gpu"]:
        return torch.device("cpu")
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return torch.device("cuda", 0)


def _write_to(log: str) -> None:
    """Append everything that this process and its libraries print from now on to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def _end_with_driver() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _show_life(pulse: Path) -> None:
    while True:
        with suppress(OSError):  # the driver removes the folder just before it kills this process
            pulse.touch()
        time.sleep(1)
