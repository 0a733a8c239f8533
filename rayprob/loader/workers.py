"""Loader workers: processes that decode requests ahead, in order, and end when the iteration ends."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from rayprob.errors import RayprobError, RunError
from rayprob.loader.decode import Decoded, MicroBatches, Request


def decode_ahead(
    dataset: MicroBatches, requests: Iterator[Request], *, loader_workers: int, prefetch: int
) -> Generator[Decoded, None, None]:
    """Yield the images of each request, in the order of the requests, whatever the number of loader workers.

    Closing the generator ends the loader workers. Raises what a loader worker met, and RunError where one has died.
    """
    if loader_workers == 0:
        yield from (_or_raise(dataset[request]) for request in requests)
        return
    results = _start(dataset, requests, loader_workers, prefetch)
    try:
        with _worker_death_reported():
            yield from map(_or_raise, results)
    finally:
        # Left to the garbage collector, the processes would outlive an error for as long as its traceback is kept.
        results._shutdown_workers()


class _Requests(Sampler[Request]):
    """Hands one iterator of requests to DataLoader, which would otherwise make batches of its own."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        return self._requests


def _start(dataset: MicroBatches, requests: Iterator[Request], loader_workers: int, prefetch: int) -> Any:
    with warnings.catch_warnings():
        # The run file says how many; a hint about the number of cores would come once for every evaluation and rank.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        data_loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=_Requests(requests),
            collate_fn=_as_it_is,
            num_workers=loader_workers,
            prefetch_factor=prefetch,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(_start_worker, dict(os.environ)),
            multiprocessing_context=_context(),
        )
        return iter(data_loader)


def _context() -> BaseContext:
    """Return a way to start processes that is safe beside the threads of Ray, arrow and CUDA, as a plain fork is not.

    The server imports torch once; each loader worker is then a fork of it, and shares its memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    resource_tracker.ensure_running()  # by itself, because it unblocks signals when it is done
    # Ctrl-C reaches the whole process group; the training process ends its step first, and needs its loader workers for it.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return context


def _start_worker(environment: dict[str, str], _: int) -> None:
    # The server keeps the environment that it was started with; credentials may have been set since.
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _as_it_is(result: Any) -> Any:
    return result


def _or_raise(result: Decoded | RayprobError) -> Decoded:
    if isinstance(result, RayprobError):
        raise result
    return result


@contextmanager
def _worker_death_reported() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        # Besides DataLoader's own RuntimeError: a dead worker's results cannot be fetched from it any more.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise RunError(
            f"a loader worker died ({error}); usually memory ran out: lower loader_workers, prefetch or micro_batch, "
            f"or give the container more shared memory (--shm-size)"
        ) from error
