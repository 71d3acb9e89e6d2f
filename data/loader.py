"""Order of the images and the loader processes.

The order follows from (seed, epoch) alone and augmentation from (seed, epoch, index), so neither the number of worker
processes nor an interruption changes what a model sees.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.queues
import os
import signal
import weakref
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sharpcontour.errors import InputError
from sharpcontour.host import Target
from sharpcontour.io.images import ImageError

WAIT = 600.0  # seconds for one batch, after which something has gone wrong
FORGOTTEN = 600  # s after which a loader process obeys SIGTERM; the update under way may need it as long
Key = tuple[int, int]  # epoch (-1: evaluation), index
Batch = tuple[list[Tensor], list[Target]]


class TrainingBatches:
    """Batches of keys without end; all images of a batch, on all processes, have one orientation.

    The images of one orientation, shuffled anew for each epoch, form an endless stream that is cut into batches of all
    processes together. An epoch holds the batches that end within it, in random order: no image is left out or
    repeated, and the rest that does not fill a batch opens the next epoch.

    Args:
        groups: (n,) int, orientation of each image.
        batch_size: of one process.
        seed: of the order.
        rank, world_size: which part of every batch this process gets.
        start: (epoch, batches of it to skip); these may be more than the epoch has.
    """

    def __init__(
        self,
        groups: np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: tuple[int, int] = (0, 0),
    ) -> None:
        self.members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        self.total, self.own = batch_size * world_size, slice(rank * batch_size, (rank + 1) * batch_size)
        self.seed, self.start = seed, start

    def count(self, epoch: int) -> int:
        """Batches in an epoch."""
        return sum((epoch + 1) * len(m) // self.total - epoch * len(m) // self.total for m in self.members)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, skip = self.start
        while skip >= self.count(epoch):
            skip -= self.count(epoch)
            epoch += 1
        while True:
            for batch in self._epoch(epoch)[skip:]:
                yield [(int(e), int(i)) for e, i in batch[self.own]]
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """Batches (batch of all processes, 2) of epoch and index."""
        batches: list[np.ndarray] = []
        for group, members in enumerate(self.members):
            n = len(members)
            first, last = epoch * n // self.total, (epoch + 1) * n // self.total
            epochs, places = np.divmod(np.arange(first * self.total, last * self.total), n)
            index = np.empty(len(epochs), np.int64)
            for e in np.unique(epochs):
                order = np.random.default_rng((self.seed, int(e), group)).permutation(members)
                index[epochs == e] = order[places[epochs == e]]
            batches += list(np.stack([epochs, index], 1).reshape(-1, self.total, 2))
        shuffle = np.random.default_rng((self.seed, epoch)).permutation(len(batches))
        return [batches[i] for i in shuffle]


class EvaluationBatches:
    """Every image once, in order, dealt out among the processes; none is repeated to fill a batch."""

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices, self.batch_size = range(rank, length, world_size), batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for begin in range(0, len(self.indices), self.batch_size):
            yield [(-1, index) for index in self.indices[begin : begin + self.batch_size]]


class Loader:
    """Iterates over (images, targets), lists of the same length; endless in training.

    Args:
        loader: of torch.
        last_words: where a loader process writes what made it end.
        training: off: images that cannot be used are left out of their batches, and do not end the work.

    Attributes:
        left_out: what was wrong with images left out since the iteration began, a line each.
    """

    def __init__(self, loader: DataLoader[Any], last_words: Any, training: bool) -> None:
        self._loader, self._last_words, self._training = loader, last_words, training
        self.left_out: list[str] = []

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Generator[Batch, None, None]:
        stream = self._batches()
        _open_streams.add(stream)
        return stream

    def _batches(self) -> Generator[Batch, None, None]:
        # The loop alone holds the worker processes: they end with it, by an error or the stream's close() too.
        self.left_out = []
        try:
            for batch, errors in self._loader:
                for error in errors:
                    if self._training or not isinstance(error, ImageError):
                        raise error
                    self.left_out.append(str(error))
                if batch[0]:
                    yield batch
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            raise InputError(self._why(error)) from error

    def _why(self, error: RuntimeError) -> str:
        """What ended the loader's processes, in a line with the mend."""
        told = self._last_words.value.decode(errors="replace")
        reason = told or str(error).strip().splitlines()[0]
        return (
            f"the loader's processes gave up ({reason}); they hand images over in shared memory: make /dev/shm larger "
            "(docker run --shm-size=8g), raise the limit of open files (ulimit -n), or set data.workers=0"
        )


_open_streams: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    """Runs before the interpreter would terminate the workers, which hold out against that signal for a while."""
    for stream in list(_open_streams):
        stream.close()


def build_loader(
    dataset: Any,
    batch_size: int,
    *,
    training: bool,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    start: tuple[int, int] = (0, 0),
) -> Loader:
    """Build the loader of one process's share of a data set.

    Args:
        dataset: from :func:`data.build_dataset`.
        batch_size: images of one process.
        training: endless shuffled batches, else every image once and in order.
        seed: of the order.
        rank, world_size: which share.
        workers: loader processes.
        start: training only: epoch and batches of it to skip, as after a resume.
    """
    sampler: TrainingBatches | EvaluationBatches
    if training:
        groups = dataset.aspect_groups()
        sampler = TrainingBatches(groups, batch_size, seed=seed, rank=rank, world_size=world_size, start=start)
    else:
        sampler = EvaluationBatches(len(dataset), batch_size, rank=rank, world_size=world_size)
    if workers > 0:
        _raise_file_limit()
    last_words, cuda = multiprocessing.Array("c", 512), torch.cuda.is_available()
    loader = DataLoader(
        Guarded(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=cuda,
        worker_init_fn=partial(_start_worker, last_words, not cuda),
        timeout=WAIT if workers > 0 else 0,
        generator=torch.Generator().manual_seed(seed),  # else it would draw from, and change, the global one
    )
    return Loader(loader, last_words, training)


class Guarded(Dataset[Any]):
    """A data set that hands a worker's InputError over as a value, for DataLoader would wrap it in a traceback."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except InputError as error:
            return error


def _collate(samples: list[Any]) -> tuple[Batch, list[InputError]]:
    """A batch, and what was handed over in the place of samples."""
    good = [sample for sample in samples if not isinstance(sample, InputError)]
    batch = [sample["image"] for sample in good], [sample["target"] for sample in good]
    return batch, [sample for sample in samples if isinstance(sample, InputError)]


def _start_worker(last_words: Any, yielding: bool, worker: int) -> None:
    # A batch that cannot be handed over would be dropped with a word on the screen, and waited for without end.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(  # type: ignore[attr-defined]
        partial(_end_worker, last_words)
    )
    # A whole process group gets the signals that ask a run to stop, but the training process must finish its step first
    # and then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(FORGOTTEN))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Where the model computes on the same cores, a thread of it that has to wait makes all of them wait.
    if yielding and hasattr(os, "nice"):  # not on Windows
        os.nice(19)


def _end_worker(last_words: Any, error: Exception, batch: Any) -> None:
    """Leave a note and end this loader process, which the training process notices within seconds."""
    last_words.value = f"{type(error).__name__}: {error}".splitlines()[0].encode()[:500]
    os._exit(1)


def _raise_file_limit() -> None:
    """Every tensor on its way from a worker holds a file open; the usual limit of 1024 is too low for large batches."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
