"""Numbers and names for people, and text that cannot break out of its place in a card."""

from __future__ import annotations

import math
import re
from typing import Any

from .jsonsafe import number

_SHARES = re.compile(
    r"(^|_)(accuracy|acc|precision|recall|auc|roc_auc|iou|mean_iou|map|exact_match|top_?\d+(_accuracy)?)($|_)"
)
"""Metrics that are a share of 1, as people know them by a percentage; F1, a mean of two, goes as a number."""
_UPPER = {
    "acc",
    "auc",
    "bleu",
    "cer",
    "f1",
    "iou",
    "kl",
    "map",
    "mae",
    "mse",
    "ndcg",
    "rmse",
    "roc",
    "ter",
    "wer",
}
_NAMES = {
    "acc": "Accuracy",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougel": "ROUGE-L",
    "rougelsum": "ROUGE-Lsum",
    "sacrebleu": "SacreBLEU",
    "matthews_correlation": "Matthews correlation",
    "pearsonr": "Pearson's r",
    "spearmanr": "Spearman's ρ",
    "map": "mAP",
    "mean_iou": "Mean IoU",
    "mean_token_accuracy": "Mean token accuracy",
}
MAX_NAME = 80


def decimal(value: Any, digits: int = 4) -> str:
    """A number with `digits` significant digits and thousands separators: 0.1235, 12,350, 3.1e-05."""
    value = number(value)
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if isinstance(value, int) or (abs(value) >= 10 ** (digits - 1) and abs(value) < 1e15):
        return f"{round(value):,}"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size >= 15:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.{max(0, digits - 1 - size)}f}"


def setting(value: Any) -> str:
    """A hyperparameter as it was set: no digit of a number is cut off."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return ", ".join(setting(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={setting(item)}" for key, item in value.items())
    return str(value)


def spoken_epoch(value: Any) -> str:
    """An epoch as short as it can be told: 1, 0.25, 12.5."""
    found = number(value)
    return f"{found:.3g}" if found is not None and abs(found) < 1000 else decimal(value)


def is_share(metric: str, value: Any) -> bool:
    """Whether people expect a percentage for a metric: an accuracy, a recall or the like within 0 and 1."""
    value = number(value)
    return value is not None and 0 <= value <= 1 and bool(_SHARES.search(metric.lower()))


def measure(metric: str, value: Any) -> str:
    """A metric's value: `93.21 %` for a share, else 4 significant digits."""
    return f"{float(value) * 100:.2f} %" if is_share(metric, value) else decimal(value)


def metric_name(metric: str) -> str:
    """`eval`'s own part of a metric's name for people: `matthews_correlation` → Matthews correlation."""
    known = _NAMES.get(metric.lower())
    if known:
        return known
    words = [word for word in re.split(r"[_\s]+", metric) if word]
    words = [word.upper() if word.lower() in _UPPER else word for word in words]
    text = " ".join(words) or metric
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def is_loss(metric: str) -> bool:
    return metric == "loss" or metric.endswith("_loss")


def lower_is_better(metric: str) -> bool:
    return bool(re.search(r"loss|perplexity|error|(^|_)(mae|mse|rmse|wer|cer|ter)($|_)", metric.lower()))


def count(value: Any) -> str:
    """A whole number with thousands separators."""
    found = number(value)
    return decimal(value) if found is None or not math.isfinite(found) else f"{round(found):,}"


def big(value: float) -> str:
    """A large count in words: 124.4 million."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.4g} {word}"
    return f"{int(value):,}"


def step_of(step: Any, max_steps: Any = None) -> str:
    """`step 500 of 2,000`."""
    known = number(max_steps)
    return f"step {count(step)}" + (f" of {count(known)}" if known and known > 0 else "")


def duration(seconds: Any) -> str:
    """`42 seconds`, `3 min 20 s`, `5 h 12 min`, `2 d 4 h`."""
    value = number(seconds)
    if value is None or not math.isfinite(value) or value < 0:
        return "–"
    whole = round(value)
    if whole < 60:
        return f"{decimal(value, 2)} seconds" if value < 10 else f"{whole} seconds"
    scales = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
    size, unit, smaller, small = next(scale for scale in scales if whole >= scale[0])
    first, rest = divmod(whole, size)
    return f"{first} {unit}" + (f" {rest // smaller} {small}" if rest // smaller else "")


def memory(size: Any) -> str:
    """Bytes in the unit that devices are sold by: `80 GB` for 85,899,345,920 bytes (GiB)."""
    value = number(size) or 0
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


# ------------------------------------------------------------------------------------------------ escaping

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
"""Also what reorders or hides text."""
_MARKUP = re.compile(r"([\\`*\[\]|~$])|(?<![^\W_])(_)|(_)(?![^\W_])")


def one_line(text: Any, limit: int = MAX_NAME) -> str:
    """`text` in one line without control characters, at most `limit` characters."""
    line = " ".join(_CONTROL.sub(" ", str(text)).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def plain(text: Any, limit: int = MAX_NAME) -> str:
    """`text` as it reads, wherever markdown stands: no markup, HTML, table or maths comes of it."""
    line = one_line(text, limit)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _MARKUP.sub(lambda match: "\\" + match.group(0), line)
    line = re.sub(r"^(#+|[+=-])(?=\s|$)|(#+)$", r"\\\g<0>", line)
    # GitHub's markdown makes links of bare addresses.
    return re.sub(
        r"(?i)\b(https?|ftp):|\bwww\.", lambda m: m.group(0)[:-1] + ("&#58;" if m.group(1) else "&#46;"), line
    )


def code(text: Any, limit: int = 200) -> str:
    """`text` in a code span, also inside a table."""
    line = one_line(text, limit).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""
