"""Every choice of the method in one place, with the paper's value as the default.

Fields that the paper does not fix say "paper silent" and why the default is what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class EvolutionConfig:
    """Settings of the contour evolution (section 3.1; Tables 5, 7 and 8)."""

    vertices: int = 128  # N, vertices of every ring traced from a mask (section 4.1)
    ratio: float = 0.003  # lambda, the deformation ratio; a step is at most ratio * sqrt(A) / 2 (sections 3.1, 4.1)
    max_steps: int = 10  # M, moves in one iteration at most (section 4.1)
    iterations: int = 3  # n, evolution iterations (section 4.1)
    adaptive_step: bool = True  # scale the step by |phi - 0.5|; off: by its largest value, 0.5 (Table 5)
    freeze: bool = True  # a vertex that has flipped takes no part in later iterations (section 3.1)
    normal_window: float = 2.0  # px; paper silent: half-length of the chord whose perpendicular is the normal
    resample_host: bool = False  # resample a contour host's polygon to N; paper: "used directly" (section 3.3)
    resample_iterations: bool = False  # re-space the vertices evenly before iterations 2 to n; not in the paper
    temperature: float = 1.0  # phi marches as sigmoid(logit / temperature): below 1 it is sharper; not in the paper
    margin: float = 0.0  # of |phi - 0.5|, up to which a vertex stays where it is; not in the paper
    # Not in the paper: how much closer to the boundary the moves of a vertex and its neighbours must bring them, as far
    # as phi can tell, a share of sqrt(A), or they are taken back; 0: off. Not with resample_iterations: after it
    # vertices are others.
    min_gain: float = 0.0
    interpolate_flip: bool = False  # stop where phi crosses 0.5, not at the step behind it; not in the paper
    min_iou: float = 0.5  # paper silent: keep the coarse contour where the refined one overlaps it by less


@dataclass
class TracingConfig:
    """Settings of the tracing of initial contours from masks; a contour host's polygons are used as they are.

    The paper is silent on components and holes; here none gets lost.
    """

    min_area: float = 4.0  # px^2 of the network input: smaller rings are carried through unrefined
    min_share: float = 0.01  # of the object's area: smaller rings are carried through unrefined as well
    # Not in the paper: the N vertices' displacements are carried back to the outline as it was traced or given, so that
    # what does not move keeps its pixels; off: the N vertices are the refined contour. AnyMask does it
    # in any case. Not with resample_iterations.
    carry_back: bool = False
    # px of the network input, with AnyMask of the image as it was given: where displacements are carried back, a vertex
    # that moved no farther keeps its place. Annotations are hardly more exact than a pixel or two.
    min_move: float = 0.1


@dataclass
class ClassifierConfig:
    """Settings of the instance-aware point classifier and of its controller (section 3.2)."""

    feature_channels: int = 16  # channels of the fine-grained feature (section 3.2)
    hidden: int = 16  # width of the IPC; paper silent: the width of its feature
    hidden_layers: int = 3  # (section 3.2)
    controller_width: int = 256  # of the first two FC layers; paper silent: small, the head is "very compact"
    # What it tells of a point: phi, the method; vector or distance, the regression designs of Table 9 (regression.py).
    # polygon is another method, PolyTransform, which tells the way of all points of a ring (models/polytransform.py).
    output: Literal["phi", "vector", "distance", "polygon"] = "phi"
    # Not in the paper: the MLP also reads how far a point lies from the given contour and on which side of it; for
    # hosts given contours.
    distance: bool = False
    # Not in the paper: the shared map that f is read from is brought to mean 0 and variance 1 for every image, its
    # padding in the batch included, then scaled and shifted by channel (group norm of one group).
    feature_norm: bool = False
    instance_aware: bool = True  # off: one learned classifier for all instances (what section 3.2 argues against)


@dataclass
class PointConfig:
    """Settings of the training points.

    Section 3.3: "randomly sampling pixels near the ground-truth instance boundary".
    """

    points: int = 128  # per instance; paper silent: a batch has many instances
    sigma: float = 0.02  # of sqrt(A): spread across the boundary; paper silent: about half of the evolution's reach
    min_sigma: float = 1.0  # px, its floor; paper silent: below a pixel the sides cannot be told apart
    uniform: float = 0.1  # share drawn uniformly from the enlarged box; paper silent: phi must be defined there too
    # Not in the paper: share of all points drawn around the given contour, of hosts that have one in training.
    given: float = 0.0
    enlarge: float = 0.1  # of width and height, how much larger on every side that box is; paper silent, as "uniform"


@dataclass
class LossConfig:
    """Settings of the losses of section 3.4, eqs. (2) and (3)."""

    gamma: float = 2.0  # focusing exponent (section 3.4)
    alpha_limits: tuple[float, float] = (0.05, 0.95)  # paper silent: keeps the dynamic alpha a weight
    weight: float = 10.0  # mu (section 3.4)
    regression_weight: float = 2.0  # of Table 9's regression; paper silent: at first as large as mu * L_IPC


@dataclass
class TransformerConfig:
    """Settings of PolyTransform, which SharpContour is compared with; no part of the method."""

    width: int = 128  # of vertex descriptions
    layers: int = 3
    heads: int = 4
    spread: float = 0.1  # weight of the standard deviation of the edges' lengths in the loss
    # px, a multiple of 32: features come from a network of its own, on a crop of each instance of this height and
    # width, as in PolyTransform's paper; 0: from the host's map
    crop: int = 0


@dataclass
class SharpContourConfig:
    """All settings of the refiner, one group for each part of the method."""

    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    points: PointConfig = field(default_factory=PointConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    train_host: bool = True  # joint training; off: "training alone", the host frozen (Table 3)
