"""The training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from engine import checkpoint
from engine.config import TrainConfig
from engine.distributed import World, seed_all, share_buffers
from engine.logging import Clock, Means, RunLog, memory_gib, progress_line, say
from engine.schedule import learning_rate, set_learning_rate
from engine.update import Updater, Verdicts
from eval.processes import gather_objects
from models.loading import load_weights
from sharpcontour.errors import InputError
from sharpcontour.host import Target
from sharpcontour.io.device import to_device
from sharpcontour.io.files import write_whole
from sharpcontour.io.signals import StopSignals

Batch = tuple[list[Tensor], list[Target]]
Batches = Generator[Batch, None, None]
MAX_SKIPPED = 3  # skipped updates in a row that end a run


class StepRecord(TypedDict):
    """What is written down of a step whose update was skipped."""

    step: int
    rank: int
    lr: float
    image_ids: list[int]
    losses: list[dict[str, Any]]  # by name, of each part of the batch: tensors, plain numbers once they are needed


def images_per_pass(config: TrainConfig, world: World) -> int:
    """Images of one forward pass of one process.

    Raises:
        InputError: if the batch does not divide.
    """
    passes = world.size * config.accumulation
    if config.images_per_batch % passes:
        raise InputError(
            f"train.images_per_batch={config.images_per_batch} does not divide among {world.size} processes x "
            f"{config.accumulation} accumulation steps; choose a multiple of {passes}"
        )
    return config.images_per_batch // passes


class Trainer:
    """Trains a model step by step, saves, resumes, logs.

    A step is one update of the weights. All that is random in it follows from (seed, rank, step), and its images from
    how many were seen before, so a run that was interrupted goes on with the images, random numbers and rates that it
    would have had. On the CPU with as many processes and threads its weights are the same to the last bit. On CUDA they
    differ from run to run by rounding, resumed or not: the gradients of grid_sample, RoIAlign and index_add are sums by
    atomics, whose order is not fixed.

    Args:
        model: on ``world.device``; ``model(images, targets)`` gives the losses.
        config: of the training.
        world: this process's place among all.
        folder: of the run.
        batches: ``batches(n)`` gives this process's (images, targets) without end, beginning after the n-th.
        evaluate: ``evaluate(step)`` returns scalars for the log; called on every process, the model in eval mode.
        extra: "config", "categories" and "images", stored in every checkpoint.
        replaced: indices of the unreadable images that this process has replaced by others so far.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        world: World,
        folder: Path,
        batches: Callable[[int], Batches],
        evaluate: Callable[[int], dict[str, float]],
        extra: dict[str, object],
        replaced: Callable[[], list[int]] = list,
    ) -> None:
        self.model, self.config, self.world, self.folder = model, config, world, folder
        self.updater = Updater(model, config, world)
        self.step, self.images_seen, self.skipped_in_a_row, self.skipped, self.overflowed = 0, 0, 0, 0, 0
        self._batches, self._evaluate, self._extra, self._replaced = batches, evaluate, extra, replaced
        self._per_pass = images_per_pass(config, world)
        self._verdicts, self._means, self._clock = Verdicts[StepRecord](world), Means(), Clock()
        self._saved_at = -1

    def replaced(self) -> int:
        """Unreadable images that all processes together have replaced by others so far."""
        return len(set().union(*gather_objects(self._replaced())))

    def resume(self, state: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint's state; model and classes must have been checked to agree."""
        load_weights(self.model, state, path)
        own, given = (opt["param_groups"] for opt in (self.updater.optimizer.state_dict(), state["optimizer"]))
        if [_kind(group) for group in own] != [_kind(group) for group in given]:
            raise InputError(f"{path}: its optimizer state does not fit (another optimizer); keep that run's options")
        try:
            self.updater.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise InputError(f"{path}: its optimizer state does not fit ({error}); keep that run's options") from error
        for group, options in zip(self.updater.optimizer.param_groups, own, strict=True):
            group.update({name: value for name, value in options.items() if name != "params"})  # of this run
        self.updater.lay_out_moments()
        if self.updater.scaler.is_enabled() and state["scaler"]:
            self.updater.scaler.load_state_dict(state["scaler"])
        self.step, self.images_seen = state["step"], state["images_seen"]
        self.skipped_in_a_row, self.skipped = state["skipped_in_a_row"], state["skipped"]
        self.overflowed = state.get("overflowed", 0)  # not in a checkpoint of an earlier version
        if path.resolve().parent == (self.folder / "checkpoints").resolve():
            self._saved_at = self.step
        if state["world_size"] != self.world.size:
            say(
                self.world,
                f"warning: {path.name} was written by {state['world_size']} processes, now there are "
                f"{self.world.size}: the batch and its learning rate stay the same, sampled points and rounding differ",
            )

    def fit(self) -> bool:
        """Train to the end, with evaluations in between and after; False if a signal ended it before."""
        config = self.config
        log = RunLog(self.folder, self.step, self.world.main)
        batches = self._batches(self.images_seen // (self._per_pass * self.world.size))
        period = config.eval_period or config.iterations
        try:
            self.model.train()
            if 0 < self.step < config.iterations and self.step % period == 0 and not any(gather_objects(log.evaluated)):
                self._run_evaluation(log)  # the run was interrupted before it
            while self.step < config.iterations:
                until = min((self.step // period + 1) * period, config.iterations)
                with StopSignals() as signals:
                    going = self._train_until(until, batches, signals, log)
                    self.save()
                    going = going and not any(gather_objects(signals.received))
                if not going:
                    say(self.world, f"stopped by a signal after step {self.step}; the same command goes on from there")
                    return False
                if until < config.iterations:
                    self._run_evaluation(log)
            self.save()  # a finished run that goes on in another folder
            self._run_evaluation(log)
            return True
        finally:
            log.close()
            batches.close()  # ends the loader's processes, which would hold up an exit by an error

    def _train_until(self, until: int, batches: Batches, signals: StopSignals, log: RunLog) -> bool:
        """Steps up to ``until``; False if a signal came."""
        config = self.config
        self._clock.restart()
        begin = time.perf_counter()
        while self.step < until:
            self._train_step(batches, signals)
            going = self._settle(everything=self.step == 1)
            if self.step == 1:
                spent = time.perf_counter() - begin
                say(self.world, f"first update done, in {spent:.0f} s; a line comes every {config.log_period} of them")
            if self.step % config.log_period == 0 or self.step == until:
                self._report(log)
            if not going:
                return False
            if self.step % config.checkpoint_period == 0:
                self.save()
        return True

    def _train_step(self, batches: Batches, signals: StopSignals) -> None:
        config, updater = self.config, self.updater
        rate = learning_rate(self.step, config)
        set_learning_rate(updater.optimizer, rate)
        updater.begin()
        record: StepRecord = {"step": self.step, "rank": self.world.rank, "lr": rate, "image_ids": [], "losses": []}
        for part in range(config.accumulation):
            begin = time.perf_counter()
            images, targets = next(batches)
            self._clock.waited(time.perf_counter() - begin)
            seed_all(config.seed, self.world.rank, self.step, part)
            record["image_ids"] += [target["image_id"] for target in targets]
            images, targets = to_device(images, self.world.device), to_device(targets, self.world.device)
            values = updater.backward(images, targets, last=part == config.accumulation - 1)
            record["losses"].append(values)
            self._means.add(values)
        norm, skipped = updater.finish()
        self._means.add({"grad_norm": norm})
        self._verdicts.push(skipped, signals.received, record)
        self._clock.tick()
        self.step += 1
        self.images_seen += config.images_per_batch

    def _settle(self, everything: bool = False) -> bool:
        """Act on the outcome of past updates, on all processes alike; False if a stop was asked for."""
        going = True
        for skipped, stop, record in self._verdicts.pop(everything):
            going = going and not stop
            if skipped:
                self._note_skipped(record)
            else:
                self.skipped_in_a_row = 0
        return going

    def _note_skipped(self, record: StepRecord) -> None:
        """Write down what every process had in a skipped update; too many in a row end the run."""
        record["losses"] = [{name: _plain(value) for name, value in values.items()} for values in record["losses"]]
        records = gather_objects(record)
        finite = all(isinstance(values["loss"], float) for r in records for values in r["losses"])
        scaler = self.updater.scaler
        if scaler.is_enabled() and finite and scaler.get_scale() >= 1:
            self.overflowed += 1  # of float16, and the scaler has lowered its scale: nothing is wrong
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        path = self.folder / "bad_batch.json"
        if self.world.main:
            report = {"scale": scaler.get_scale(), "processes": records}
            write_whole(json.dumps(report, indent=1).encode(), path)
        say(self.world, f"warning: loss or gradient of step {record['step']} is not finite, update skipped; see {path}")
        if self.skipped_in_a_row >= MAX_SKIPPED:
            images = [image for r in records for image in r["image_ids"]]
            raise InputError(
                f"stopped: {MAX_SKIPPED} updates in a row were not finite, the last at step {record['step']} "
                f"with images {images[:16]} ({path}); lower train.base_lr, set train.clip_grad_norm, "
                "or check these images"
            )

    def _report(self, log: RunLog) -> None:
        config = self.config
        values = self._means.pop()
        values["lr"] = self.updater.optimizer.param_groups[0]["lr"]
        values |= {"skipped": self.skipped, "overflowed": self.overflowed}
        values["replaced_images"] = self.replaced()
        values["memory_gib"] = memory_gib(self.world.device)
        values.update(self._clock.report(config.iterations - self.step, config.images_per_batch))
        log.scalars(self.step, values)
        say(self.world, progress_line(self.step, config.iterations, values))

    def _run_evaluation(self, log: RunLog) -> None:
        self.model.eval()
        share_buffers(self.model)
        log.scalars(self.step, self._evaluate(self.step))
        log.pictures(self.step, sorted((self.folder / "pictures").glob("*.png")))
        self.model.train()

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        self._settle(everything=True)
        if self._saved_at == self.step:
            return
        self._saved_at = self.step
        if self.world.main:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.updater.optimizer.state_dict(),
                "scaler": self.updater.scaler.state_dict(),
                "step": self.step,
                "images_seen": self.images_seen,
                "skipped_in_a_row": self.skipped_in_a_row,
                "skipped": self.skipped,
                "overflowed": self.overflowed,
                "world_size": self.world.size,
                "torch": str(torch.__version__),
                **self._extra,
            }
            checkpoint.save(self.folder / "checkpoints", state, self.step, self.config.keep_checkpoints)


def _kind(group: dict[str, Any]) -> list[str]:
    """What tells optimizers apart: other options come and go with torch's versions."""
    return [key for key in ("momentum", "betas") if key in group]


def _plain(value: Tensor) -> float | str:
    """A number for JSON, which knows no NaN."""
    return float(value) if value.isfinite() else str(float(value))
