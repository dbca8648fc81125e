"""The picture of the curves."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hub_callbacks.card import curves, render_card

from .conftest import NAMES, golden_facts

PAGES = {"light": "#ffffff", "dark": "#0b0f19"}


def picture(name: str = "image_classification", **changed: Any) -> Image.Image:
    setup, progress, _ = golden_facts(name)
    return Image.open(io.BytesIO(curves.draw(setup, progress | changed)[curves.FILE_NAME]))


@pytest.mark.parametrize("name", NAMES)
def test_each_training_has_its_curves_on_a_transparent_ground(name: str) -> None:
    image = picture(name)
    assert image.format == "PNG" and image.mode == "RGBA"
    alpha = np.asarray(image)[..., 3]
    assert alpha[0, 0] == 0 and (alpha > 200).sum() > 2_000


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", PAGES)
def test_lines_and_text_can_be_read_on_a_light_and_a_dark_page(page: str) -> None:
    """A contrast of 3 is what the W3C asks of graphics and of large text (WCAG 2, 1.4.11)."""
    for color in (*curves._COLORS, curves._TEXT):
        light, dark = sorted((_luminance(color), _luminance(PAGES[page])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, color


def test_the_same_facts_give_the_same_picture_and_leave_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"lines.linewidth": 20, "axes.facecolor": "red", "text.usetex": False}):
        one = picture().tobytes()
    assert picture().tobytes() == one
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_there_is_no_picture_and_no_link_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    rendered = render_card(*golden_facts("image_classification"))
    assert rendered.pictures == {} and "![" not in rendered.text and "## Training results" in rendered.text


def test_a_single_point_is_no_curve() -> None:
    setup, progress, options = golden_facts("no_evaluation")
    one = {"step": [1], "loss": [1.0], "learning_rate": [0.1]}
    rendered = render_card(setup, progress | {"training": one}, options)
    assert rendered.pictures == {} and "Training results" not in rendered.text


def test_values_that_are_no_numbers_and_names_of_any_script_are_drawn_around() -> None:
    rows = [
        {
            "step": step,
            "epoch": None,
            "metrics": {"eval_$x_{^": value, "eval_准确率": 0.5, "eval__": 1.0, "eval_loss": value},
        }
        for step, value in enumerate(["NaN", 1e300, -1e300, "Infinity", 0, 5e-324])
    ]
    training = {"step": [1, 2, "NaN", 4], "loss": ["NaN", "Infinity", 1.0, 2.0]}
    assert picture(evaluations=rows, training=training).mode == "RGBA"


def test_matplotlib_is_loaded_only_for_a_picture() -> None:
    code = "import sys; from hub_callbacks.card import render_card; render_card({}, {}); "
    code += "print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
