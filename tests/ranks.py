"""Processes of several ranks, forked from one server that imports torch once: fresh interpreters take three times as long."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from typing import Any

import torch.multiprocessing as mp


def run_ranks(target: Callable[..., None], num_ranks: int, *arguments: Any) -> None:
    """Run `target(rank, *arguments)` in a process per rank, and raise what one of them raises."""
    multiprocessing.set_forkserver_preload(["rayprob.loader.workers", "torch.distributed"])
    resource_tracker.ensure_running()
    # A process has one such server. Loader workers of later tests come from it too, and theirs must not hear Ctrl-C.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    mp.start_processes(target, arguments, nprocs=num_ranks, start_method="forkserver")
