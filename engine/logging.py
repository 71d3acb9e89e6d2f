"""What a run tells: ``log.jsonl``, TensorBoard scalars, and one line of progress."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.distributed import World
from eval.processes import gather_objects
from sharpcontour.errors import InputError
from sharpcontour.io.files import write_error, write_whole
from sharpcontour.io.images import read_image


class RunLog:
    """Scalars of one run, written by rank 0. A resumed run goes on where its checkpoint was written.

    Args:
        folder: of the run.
        step: updates already done; what the files say of later ones is dropped.
        enabled: off on all processes but one.

    Attributes:
        evaluated: whether the files have an evaluation at ``step``.
    """

    def __init__(self, folder: Path, step: int, enabled: bool) -> None:
        self.enabled, self.evaluated = enabled, False
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        self._path = folder / "log.jsonl"
        kept = _drop_after(self._path, step)
        self.evaluated = any(line["step"] == step and any(key.startswith("eval/") for key in line) for line in kept)
        self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write one line of JSON, and one TensorBoard point for each value; what is not finite becomes null."""
        if not self.enabled:
            return
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **finite}) + "\n")
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
        except OSError as error:
            raise write_error(self._path, error) from error

    def pictures(self, step: int, paths: Iterable[Path]) -> None:
        """Show image files in TensorBoard under their names."""
        for path in paths if self.enabled else ():
            with contextlib.suppress(InputError):  # one that somebody else left there
                self._board.add_image(path.stem, read_image(path), step, dataformats="HWC")

    def close(self) -> None:
        if self.enabled:
            self._board.close()


def _drop_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines of ``log.jsonl`` up to ``step``, which are returned; a line cut off by a kill goes too."""
    if not path.exists():
        return []
    kept, lines = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            if values["step"] <= step:
                kept.append(values)
                lines.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_whole("".join(lines).encode(), path)
    return kept


class Means:
    """Running means of scalars that live on the device; nothing is copied to the host before :meth:`pop`."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add scalars (any gradient is cut off); what is not finite does not count."""
        device = next(iter(values.values())).device
        row = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
        row = torch.stack([row.nan_to_num(0.0, 0.0, 0.0), row.isfinite().float()])
        names = tuple(values)
        self._sums[names] = self._sums[names] + row if names in self._sums else row

    def pop(self) -> dict[str, float]:
        """The means over all processes since the last call; waits for the device and for the other processes."""
        local = [(names, sums.tolist()) for names, sums in self._sums.items()]
        self._sums = {}
        totals: dict[str, list[float]] = {}
        for rows in gather_objects(local):
            for names, (sums, counts) in rows:
                for name, value, count in zip(names, sums, counts, strict=True):
                    total = totals.setdefault(name, [0.0, 0.0])
                    total[0] += value
                    total[1] += count
        return {name: value / count if count else math.nan for name, (value, count) in totals.items()}


class Clock:
    """Speed since the last report, share of it spent waiting for data, and the time that is left."""

    def __init__(self) -> None:
        self._since, self._waited, self._steps = time.perf_counter(), 0.0, 0
        self._pace = 0.0  # seconds per update, smoothed

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    def tick(self) -> None:
        self._steps += 1

    def report(self, remaining: int, images_per_batch: int) -> dict[str, float]:
        """Images per second, share of data wait, seconds left; starts a new window."""
        now = time.perf_counter()
        elapsed, steps = now - self._since, max(self._steps, 1)
        pace = elapsed / steps
        self._pace = pace if self._pace == 0 else 0.7 * self._pace + 0.3 * pace
        report = {
            "images_per_second": steps * images_per_batch / elapsed,
            "data_wait": self._waited / elapsed,
            "eta_seconds": remaining * self._pace,
        }
        self._since, self._waited, self._steps = now, 0.0, 0
        return report

    def restart(self) -> None:
        """Begin a new window, leaving out what took time without being training."""
        self._since, self._waited, self._steps = time.perf_counter(), 0.0, 0


def memory_gib(device: torch.device) -> float:
    """Most memory held so far: of the GPU, or else of this process (0 where the system does not tell)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def progress_line(step: int, iterations: int, values: dict[str, float]) -> str:
    """The progress of a run as one line for the terminal."""
    parts = [f"{name.removeprefix('loss_')} {values[name]:.3g}" for name in values if name.startswith("loss_")]
    eta = timedelta(seconds=round(values["eta_seconds"]))
    count = int(values.get("replaced_images", 0))
    replaced = f"  {count} unreadable images replaced" if count else ""
    skipped = int(values.get("overflowed", 0))
    overflowed = f"  {skipped} updates skipped, float16 overflowed" if skipped else ""
    return (
        f"step {step:>{len(str(iterations))}}/{iterations}  loss {values['loss']:.4g} ({', '.join(parts)})  "
        f"lr {values['lr']:.2e}  {values['images_per_second']:.1f} img/s  wait {values['data_wait']:.0%}  "
        f"{values['memory_gib']:.1f} GiB  eta {eta}{replaced}{overflowed}"
    )


def say(world: World, *lines: object) -> None:
    """Print on rank 0 only."""
    if world.main:
        print(*lines, sep="\n", flush=True)
