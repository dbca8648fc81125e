"""A process that has imported what training scripts import, and forks itself for each of them.

`interpreters.start` runs it and asks it for scripts. It runs no operation of torch and starts no thread, so that a
fork has all that a new interpreter has; what it imports is imported in the order of a script.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = "/nowhere/of-the-fork-server"
ENDPOINT = "http://fork-server.invalid"
"""What `HF_HOME` and `HF_ENDPOINT` are while modules are imported that keep what they read there; see `_move`."""


Places = list[tuple[types.ModuleType, str, Any]]
"""Globals of modules: the module, the name and the value."""


@dataclass(frozen=True)
class Script:
    """
    Args:
        arguments: As they come after `python`: a path, `-c` or `-m` first.
        environment: All of it.
        folder: The working directory.
        streams: Descriptors of standard input, output and error.
        report: Where the process says that it is there, and the server how it has ended.
    """

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    streams: list[int]
    report: socket.socket


def _import() -> None:
    """Loads what costs time; the classes of transformers by name, since it loads modules when they are used."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401  (of the card's picture)
    from transformers import (  # noqa: F401
        BertForSequenceClassification,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    import hub_callbacks.callback
    import hub_callbacks.pushing.card
    import hub_callbacks.pushing.pusher
    import hub_callbacks.trainer  # noqa: F401

    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads run; a fork would lack all but one of them"
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, what is shared


def _serve(requests: socket.socket) -> Script:
    """Forks for each request, and reports how the forks end, until nobody is left to ask.

    Returns:
        In a fork, what it is to run. In the server, never.
    """
    running: dict[int, tuple[int, socket.socket]] = {}
    events = select.poll()
    events.register(requests, select.POLLIN)
    while True:
        for ready, _ in events.poll():
            if ready != requests.fileno():
                events.unregister(ready)
                process, report = running.pop(ready)
                os.close(ready)
                _report_end(process, report)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
            if not message:
                _end(process for process, _ in running.values())
            report = socket.socket(fileno=descriptors[0])
            process = os.fork()
            if not process:
                requests.close()
                for descriptor, (_, other) in running.items():
                    os.close(descriptor)
                    other.close()
                return Script(*json.loads(message), streams=descriptors[1:], report=report)
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            end = os.pidfd_open(process)
            events.register(end, select.POLLIN)
            running[end] = process, report


def _report_end(process: int, report: socket.socket) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with report, contextlib.suppress(OSError):  # nobody may want to know
        report.send(str(status).encode())


def _end(processes: Any) -> None:
    for process in processes:
        os.killpg(process, signal.SIGKILL)
    os._exit(0)


def _become(script: Script, moved: Places) -> types.ModuleType:
    """Makes this process what an interpreter is when it begins with a script; returns the `__main__` to fill."""
    os.setsid()
    for number, stream in enumerate(script.streams):
        os.dup2(stream, number)
        os.close(stream)
    with script.report:
        script.report.send(str(os.getpid()).encode())
    os.chdir(script.folder)
    os.environ.clear()
    os.environ.update(script.environment)
    _move(moved)
    # Python's own generator has a new seed after a fork.
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].default_generator.seed()
    searched = os.environ.get("PYTHONPATH")
    sys.path[:1] = ["", *(searched.split(os.pathsep) if searched else ())]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    return main


def _moved() -> Places:
    """The globals that the Hub's address or the folder of its client was put into at import."""
    return [
        (module, name, value)
        for module in list(sys.modules.values())
        if module.__name__ != "__main__"
        for name, value in vars(module).items()
        if type(value) in (str, type(Path())) and str(value).startswith((HOME, ENDPOINT))
    ]


def _move(moved: Places) -> None:
    """Puts the script's Hub and folder where the server's are, and its way to upload."""
    from huggingface_hub import constants, hf_api

    hf_api.api.endpoint = os.environ["HF_ENDPOINT"]
    constants.HF_HUB_DISABLE_XET = os.environ.get("HF_HUB_DISABLE_XET") == "1"
    for module, name, value in moved:
        place = str(value).replace(HOME, os.environ["HF_HOME"]).replace(ENDPOINT, os.environ["HF_ENDPOINT"])
        setattr(module, name, type(value)(place))


def _run(arguments: list[str], main: types.ModuleType) -> None:
    """Does what `python *arguments` does."""
    first, *rest = arguments
    if first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = arguments[:1] + rest[1:]
        runpy._run_module_as_main(rest[0])  # what `python -m` calls
    elif first == "-c":
        sys.argv = arguments[:1] + rest[1:]
        exec(compile(rest[0], "<string>", "exec", dont_inherit=True), vars(main))
    else:
        path = Path(first).absolute()
        sys.path[0] = str(path.parent)
        sys.argv = arguments
        main.__file__ = str(path)
        exec(compile(path.read_bytes(), path, "exec", dont_inherit=True), vars(main))


if __name__ == "__main__":
    import leaving  # noqa: F401  (before all else, as in a script: what is registered first is called last)

    _import()
    _in_modules = _moved()
    # In a fork, the script is run from here, so that it ends as an interpreter does, whatever it raises.
    _script = _serve(socket.socket(fileno=int(sys.argv[1])))
    _this = sys.modules["__main__"]  # else its globals would be gone
    _run(_script.arguments, _become(_script, _in_modules))
