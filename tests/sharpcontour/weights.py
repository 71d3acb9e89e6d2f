"""A file of weights like the package's, untrained and small."""

from __future__ import annotations

from pathlib import Path

import torch

from sharpcontour.anymask.host import MaskHost
from sharpcontour.anymask.network import AnyMaskConfig
from sharpcontour.config import ClassifierConfig, EvolutionConfig, SharpContourConfig
from sharpcontour.io.plain import to_dict
from sharpcontour.refined_model import RefinedModel, build_refiner


def write_weights(path: Path) -> Path:
    """Random weights of a small network, in the format that ``load_refiner`` reads."""
    torch.manual_seed(0)
    config = AnyMaskConfig(width=2, pyramid=4, window=(4, 4, 4))
    refiner_config = SharpContourConfig(
        evolution=EvolutionConfig(vertices=48), classifier=ClassifierConfig(controller_width=8)
    )
    host = MaskHost(config)
    model = RefinedModel(host, build_refiner(refiner_config, host))  # type: ignore[arg-type]
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    plain = {"host": to_dict(config), "sharpcontour": to_dict(refiner_config)}
    torch.save({"format": 1, **plain, "model": state, "about": {"trained": "not at all"}}, path)
    return path
