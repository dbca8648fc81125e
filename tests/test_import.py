"""`import hub_callbacks` is light, and so is the pusher half."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "hub_callbacks",
        "hub_callbacks.training.pusher_process",
        "hub_callbacks.pushing.pusher",
        "hub_callbacks.cli",
    ],
)
def test_importing_loads_neither_torch_nor_transformers_nor_the_hub(module):
    heavy = "{'torch', 'transformers', 'hub_callbacks.localhub', 'matplotlib'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_all_names_can_be_touched():
    import hub_callbacks

    for name in hub_callbacks.__all__:
        assert getattr(hub_callbacks, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        hub_callbacks.Nothing  # noqa: B018
