"""Runs a training script with a `HubSyncCallback` in every Trainer that it makes: `hub-callbacks run train.py`."""

from __future__ import annotations

import functools
import io
import os
import runpy
import sys
import types
import zipfile
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ..callback import HubSyncCallback
from ..training import takeover

_kept: list[dict[str, Any]] = []
"""The variables of the script: as with `python train.py`, they are there until the interpreter ends."""


def run_script(target: str, arguments: Sequence[str], is_module: bool = False) -> None:
    """Runs a script as `python train.py` and `python -m module` do: as `__main__`, with its own `sys.argv` and
    `sys.path[0]`. What it prints and its exit status are its own.

    Args:
        target: Path of the script, or name of the module.
        arguments: What the script finds in `sys.argv[1:]`.
        is_module: Whether `target` is a module's name.
    """
    if not is_module and not os.path.exists(target):
        sys.exit(f"hub-callbacks run: there is no file {target!r}. Nothing was run.")
    takeover.add_to_every_trainer(HubSyncCallback)
    sys.argv = ["-m" if is_module else target, *arguments]
    if not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.abspath(target))
    sys.excepthook = functools.partial(_show_from_the_script, sys.excepthook)
    if is_module:
        _kept.append(runpy.run_module(target, run_name="__main__", alter_sys=True))
    elif os.path.isdir(target) or zipfile.is_zipfile(target) or target.endswith(".pyc"):
        _kept.append(runpy.run_path(os.path.abspath(target), run_name="__main__"))
    else:
        # runpy makes `sys.argv[0]` and `__file__` the same; Python leaves the one as it was given.
        main = types.ModuleType("__main__")
        main.__file__ = os.path.abspath(target)
        sys.modules["__main__"] = main
        with io.open_code(main.__file__) as file:
            code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
        exec(code, vars(main))


def _show_from_the_script(
    show: Callable[..., object], kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Shows an exception as without us: the frames from here to the script are left out."""
    start = traceback
    while start is not None and start.tb_frame.f_code is not run_script.__code__:
        start = start.tb_next
    if start is not None:
        start = start.tb_next
    while start is not None and "runpy" in start.tb_frame.f_code.co_filename:
        start = start.tb_next
    show(kind, error.with_traceback(start or traceback), start or traceback)
