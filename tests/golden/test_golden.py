"""No change of structure changes a number; see tests/golden/measure.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.measure import PATH, environment, measure

EXACT = 1e-6
PLACES = 1e-5  # of detections: thirty steps gather last bits, which differ between processors of one kind too
OTHER_PICTURES = 0.1  # with another OpenCV, whose drawn pictures differ by a level here and there
ELSEWHERE = 1e-3  # with another torch or on another processor, where the last bits differ


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure()


def test_losses(recorded: dict[str, Any], measured: dict[str, Any]) -> None:
    tolerance = EXACT if recorded["environment"] == environment() else ELSEWHERE
    if recorded["environment"]["opencv"] != environment()["opencv"]:
        tolerance = OTHER_PICTURES
    assert list(measured["models"]) == list(recorded["models"])
    for name, numbers in recorded["models"].items():
        for key in ("losses", "gradient"):
            if key in numbers:
                expected = pytest.approx(numbers[key], rel=tolerance, abs=tolerance)
                assert measured["models"][name][key] == expected, f"{name}: {key}"


def test_detections(recorded: dict[str, Any], measured: dict[str, Any]) -> None:
    if recorded["environment"] != environment():
        pytest.skip(f"which detections random weights make hangs on last bits; recorded with {recorded['environment']}")
    for name, numbers in recorded["models"].items():
        for key in ("detections", "given", "counts"):
            if key in numbers:
                difference = _difference(measured["models"][name][key], numbers[key], key)
                assert difference is None, f"{name}: {difference}"


def test_recipes(recorded: dict[str, Any], measured: dict[str, Any]) -> None:
    assert measured["recipes"] == recorded["recipes"]


def _difference(found: Any, expected: Any, where: str) -> str | None:
    """The first place where two nested values differ."""
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            return f"{where}: {sorted(found)} instead of {sorted(expected)}"
        parts = [_difference(found[key], expected[key], f"{where}.{key}") for key in expected]
    elif isinstance(expected, list):
        if len(found) != len(expected):
            return f"{where}: {len(found)} values instead of {len(expected)}"
        parts = [_difference(a, b, f"{where}[{k}]") for k, (a, b) in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float):
        return None if found == pytest.approx(expected, rel=PLACES, abs=PLACES) else f"{where}: {found}, was {expected}"
    else:
        return None if found == expected else f"{where}: {found}, was {expected}"
    return next((part for part in parts if part is not None), None)
