"""Loader workers: processes that decode requests ahead, in order, and end when the iteration ends."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rayprob.errors import RayprobError, RunError
from rayprob.files import patience
from rayprob.loader.decode import Decoded, Decoder, Located, Request
from rayprob.loader.slots import Slots
from rayprob.processes import without_main


def decode_ahead(
    decoder: Decoder, requests: Iterator[Located], *, loader_workers: int, prefetch: int, max_samples: int
) -> Generator[Decoded, None, None]:
    """Yield the images of each request, in the order of the requests, for any number of loader workers.

    No request has more than `max_samples`. Closing the generator ends the loader workers. Raises the error of a loader worker,
    and RunError if one dies or shared memory is too small.
    """
    if loader_workers == 0:
        yield from (_decoded_here(decoder, request) for request in requests)
        return
    # DataLoader has loader_workers x prefetch requests in flight and one result, and the loop its last and next batch.
    slots = Slots(loader_workers * prefetch + 3, max_samples, decoder.size_px)
    results = _start(decoder, slots, requests, loader_workers, prefetch)
    try:
        with _worker_death_reported():
            yield from (_taken(slots, result) for result in results)
    finally:
        # If left to the garbage collector, the processes would outlive an error as long as its traceback is kept.
        results._shutdown_workers()


@dataclass(frozen=True)
class _Task:
    slot: int
    located: Located


@dataclass(frozen=True)
class _Done:
    slot: int
    request: Request
    faults: dict[int, str]


class _IntoSlots(Dataset[_Done | RayprobError]):
    """Does a task in a loader worker. An error is returned, not raised, as DataLoader would wrap it in a long traceback."""

    def __init__(self, decoder: Decoder, slots_SBHWC: Tensor) -> None:
        self._decoder = decoder
        self._slots_SBHWC = slots_SBHWC

    def __getitem__(self, task: _Task) -> _Done | RayprobError:
        try:
            faults = self._decoder.decode_into(self._slots_SBHWC[task.slot].numpy(), task.located)
        except RayprobError as error:
            return error
        return _Done(task.slot, task.located.request, faults)


class _Tasks(Sampler[_Task]):
    """Passes requests to DataLoader, each with a free slot."""

    def __init__(self, requests: Iterator[Located], slots: Slots) -> None:
        self._requests = requests
        self._slots = slots

    def __iter__(self) -> Iterator[_Task]:
        return (_Task(self._slots.take(), request) for request in self._requests)


def _decoded_here(decoder: Decoder, located: Located) -> Decoded:
    images_BHWC = torch.empty((len(located.samples), decoder.size_px, decoder.size_px, 3), dtype=torch.uint8)
    faults = decoder.decode_into(images_BHWC.numpy(), located)
    return Decoded(located.request, images_BHWC.permute(0, 3, 1, 2), faults)


def _taken(slots: Slots, result: _Done | RayprobError) -> Decoded:
    if isinstance(result, RayprobError):
        raise result
    images_BHWC = slots.images(result.slot, len(result.request.rows_B))
    # The bytes stay interleaved: [B, C, H, W] in channels_last order is a view, and the format GPUs prefer.
    return Decoded(result.request, images_BHWC.permute(0, 3, 1, 2), result.faults)


def _start(decoder: Decoder, slots: Slots, requests: Iterator[Located], loader_workers: int, prefetch: int) -> Any:
    with warnings.catch_warnings(), without_main():
        # The run file sets the number; a hint about the number of cores would appear for every evaluation and rank.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        data_loader = DataLoader(
            _IntoSlots(decoder, slots.block_SBHWC),
            batch_size=None,
            sampler=_Tasks(requests, slots),
            collate_fn=_as_it_is,
            num_workers=loader_workers,
            prefetch_factor=prefetch,
            generator=torch.Generator(),  # DataLoader draws a seed; the global generator belongs to the model
            worker_init_fn=partial(_start_worker, dict(os.environ), patience.patience_s()),
            multiprocessing_context=_context(),
        )
        return iter(data_loader)


def _context() -> BaseContext:
    """Return a start method that is safe with the threads of Ray, Arrow and CUDA, unlike a plain fork.

    The server imports torch once; each loader worker is then a fork of it, and shares its memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with _own_modules_only():
        resource_tracker.ensure_running()  # separately, because it unblocks signals when it is done
        _start_server()
    return context


def _start_server() -> None:
    # Ctrl-C reaches the whole process group; the training process finishes its step first, which needs its loader workers.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


@contextmanager
def _own_modules_only() -> Iterator[None]:
    """Keep processes started in the block from importing modules of the working folder, which may contain a queue.py."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _start_worker(environment: dict[str, str], patience_s: float, _: int) -> None:
    # The server keeps the environment it was started with; credentials may have been set since then.
    os.environ.update(environment)
    patience.wait_for_stores(patience_s)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _as_it_is(result: Any) -> Any:
    return result


@contextmanager
def _worker_death_reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RunError(
            f"a loader worker died ({error}); usually memory ran out: lower loader_workers, prefetch or micro_batch"
        ) from error
