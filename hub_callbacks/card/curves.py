"""The curves of a run as one picture, legible on a light and on a dark page."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from .evaluations import Evaluations, read_evaluations
from .formatting import is_loss, is_share, metric_name, one_line
from .jsonsafe import number

FILE_NAME = "training_curves.png"
MAX_PANELS = 6
# The background is transparent. These colours keep a contrast of at least 3 to white and to the Hub's dark
# page (#0b0f19); the text at least 4.
_TEXT = "#7f8894"
_GRID = "#9aa4b2"
_COLORS = ("#3b82f6", "#e8710a", "#12a150", "#c04ee0", "#d6455d", "#0d9aa8", "#a3810f", "#7c6cf0")
_TOO_LARGE = 1e30
"""Above it, as for what is no number, there is nothing to see in a curve."""
_CJK = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
)


class Line(NamedTuple):
    label: str
    steps: Sequence[float]
    values: Sequence[float]
    color: int
    points: bool = False


class Panel(NamedTuple):
    title: str
    lines: list[Line]
    percent: bool = False


def draw(setup: dict[str, Any], progress: dict[str, Any]) -> dict[str, bytes]:
    """File name → PNG; empty without matplotlib, or where nothing has two points to join."""
    panels = _panels(progress, read_evaluations(setup, progress))
    if not any(len(line.steps) > 1 for panel in panels for line in panel.lines):
        return {}
    try:
        import matplotlib
    except ImportError:
        return {}
    # A user's matplotlibrc must not change the picture, nor this picture their settings.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that no font here has
        matplotlib.rcdefaults()
        return {FILE_NAME: _figure(panels, progress)}


def _panels(progress: dict[str, Any], evaluations: Evaluations) -> list[Panel]:
    training = progress.get("training") or {}
    steps = training.get("step") or []
    several = len(evaluations.datasets) > 1
    by_metric: dict[str, list[str]] = {}
    for dataset, metric in evaluations.metrics:
        by_metric.setdefault(metric, []).append(dataset)

    loss = [*_line("training", steps, training.get("loss"), 0)]
    for i, dataset in enumerate(by_metric.pop("loss", [])):
        loss += _evaluated(evaluations, dataset, "loss", i + 1, several)
    panels = [Panel("Loss", loss)]
    for metric, datasets in by_metric.items():
        lines = [
            line
            for dataset in datasets
            for line in _evaluated(evaluations, dataset, metric, 1 + evaluations.datasets.index(dataset), several)
        ]
        values = [value for line in lines for value in line.values]
        percent = bool(values) and all(is_share(metric, value) for value in values)
        panels.append(Panel(metric_name(one_line(metric, 40)), lines, percent))
    panels = [panel for panel in panels if panel.lines][: MAX_PANELS - 1]
    rate = _line("learning rate", steps, training.get("learning_rate"), 4)
    return [*panels, Panel("Learning rate", rate)] if rate else panels


def _evaluated(evaluations: Evaluations, dataset: str, metric: str, color: int, several: bool) -> list[Line]:
    rows = evaluations.rows
    label = one_line(dataset, 30) if several and dataset else "evaluation"
    return _line(
        label, [row.step for row in rows], [row.get((dataset, metric)) for row in rows], color, points=True
    )


def _line(
    label: str, steps: Sequence[Any], values: Sequence[Any] | None, color: int, points: bool = False
) -> list[Line]:
    pairs = [(number(step), number(value)) for step, value in zip(steps, values or (), strict=False)]
    known = [
        (step, value)
        for step, value in pairs
        if step is not None and abs(step) < _TOO_LARGE and value is not None and abs(value) < _TOO_LARGE
    ]
    return [Line(label, [s for s, _ in known], [v for _, v in known], color, points)] if known else []


def _figure(panels: list[Panel], progress: dict[str, Any]) -> bytes:
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    installed = {font.name for font in font_manager.fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in _CJK if name in installed)]
    last = max(max(line.steps) for panel in panels for line in panel.lines)
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(9.6, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        for line in panel.lines:
            axes.plot(
                line.steps,
                line.values,
                label=_literal(line.label),
                color=_COLORS[line.color % len(_COLORS)],
                linewidth=1.8,
                alpha=0.95,
                marker="o" if (line.points and len(line.steps) <= 40) or len(line.steps) == 1 else None,
                markersize=3.5,
                zorder=3 if line.points else 2,
            )
        axes.set_title(_literal(panel.title), color=_TEXT, fontsize=11, fontfamily=family, fontweight="bold")
        _mark_best(axes, panel, progress)
        axes.grid(True, color=_GRID, alpha=0.28, linewidth=0.6)
        axes.set_facecolor("none")
        axes.tick_params(colors=_TEXT, labelsize=8.5, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(_GRID)
        axes.set_xlim(0, last * 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if panel.percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        elif panel.title == "Learning rate":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        elif _spans_decades(panel):
            axes.set_yscale("log")
        if i >= len(panels) - columns:
            axes.set_xlabel("step", color=_TEXT, fontsize=9)
        if len(panel.lines) > 1:
            axes.legend(frameon=False, labelcolor=_TEXT, prop={"family": family, "size": 8.5})
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=180, transparent=True, metadata={"Software": None})
    return out.getvalue()


def _mark_best(axes: Any, panel: Panel, progress: dict[str, Any]) -> None:
    """A dotted line at the step whose weights are pushed, where training went on after it."""
    step, weights = number(progress.get("step")), number(progress.get("weights_step"))
    if step and weights and 0 < weights < step and panel.title != "Learning rate":
        axes.axvline(weights, color=_GRID, linewidth=1, linestyle=(0, (2, 2)), zorder=1)


def _spans_decades(panel: Panel) -> bool:
    values = [value for line in panel.lines for value in line.values]
    return is_loss(panel.title.lower()) and min(values) > 0 and max(values) / min(values) > 50


def _literal(text: str) -> str:
    """A dollar would start matplotlib's maths; a leading underscore would hide a legend's entry."""
    return text.replace("$", r"\$") if not text.startswith("_") else " " + text.replace("$", r"\$")
