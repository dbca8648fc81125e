"""That a fork of the fork server is to a test what a new interpreter is."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import forkserver
import interpreters
from savers import wait_until
from without_torch import needs_torch

SUPPORT = str(Path(interpreters.__file__).parent)
pytestmark = [needs_torch, pytest.mark.usefixtures("shared_hub")]  # for HF_HOME and HF_TOKEN


def ended(how, *arguments, **options):
    done = interpreters.run(arguments, start=how, **options)
    frames = [
        line for line in done.stderr.splitlines() if not line.startswith("    ") and "forkserver.py" not in line
    ]
    return done.returncode, done.stdout, frames


def alike(*arguments, **options):
    new, fork = (ended(how, *arguments, **options) for how in (interpreters.start_anew, interpreters.start))
    assert fork == new
    return fork


@pytest.fixture
def code(tmp_path):
    def write(text, name="script.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise SystemExit('said')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(9)", 9),
        ("threading.Timer(0.2, print, ['of a thread']).start()", 0),
    ],
)
def test_it_ends_as_an_interpreter_does(end, status):
    begin = (
        "import atexit, os, signal, sys, threading; atexit.register(print, 'at exit'); print('begins', flush=True)"
    )
    assert alike("-c", f"{begin}\n{end}")[0] == status


WHAT_IT_IS = """
import __main__, os, signal, sys
print(__name__, __main__.__dict__ is globals(), globals().get("__file__"), __package__, sys.argv, sys.path)
print(os.getcwd(), sorted(os.environ.items()), os.getsid(0) == os.getpid() == os.getpgid(0))
print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD))
print(os.listdir("/proc/self/fd"), os.listdir("/proc/self/task") == [str(os.getpid())])
from huggingface_hub import HfApi, constants
print(HfApi().endpoint, constants.ENDPOINT, constants.HF_HOME, constants.HF_HUB_CACHE, constants.HF_TOKEN_PATH)
print(constants.HF_HUB_DISABLE_XET)
"""


@pytest.mark.parametrize(
    "variables", [{}, {"PYTHONPATH": "/some:/where", "HF_HUB_DISABLE_XET": "1"}], ids=["plain", "variables"]
)
def test_it_is_what_an_interpreter_is(code, tmp_path, variables):
    options = {"cwd": tmp_path, "env": os.environ | {"HF_ENDPOINT": "http://other.invalid"} | variables}
    path = code(WHAT_IT_IS)
    for how in (["-c", WHAT_IT_IS], [path.name], [path], ["-m", "script"]):
        assert alike(*how, "--flag", "word", **options)[0] == 0


def test_no_two_share_their_random_numbers():
    code = (
        "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item(), sep='\\n')"
    )
    one, other = (ended(interpreters.start, "-c", code)[1].split() for _ in range(2))
    assert len({*one, *other}) == 6


AT_EXIT = """
import leaving
leaving.begin()
import atexit
from types import SimpleNamespace
from hub_callbacks.training import shared_pusher
assert not shared_pusher._shared and not shared_pusher._busy
engine = SimpleNamespace(wait_at_exit=True, close=lambda grace: print("an engine is closed"))
shared_pusher._shared["one"] = SimpleNamespace(engines=[engine])
atexit.register(print, "of the script")
leaving.well()
raise ValueError
"""


def test_what_is_registered_at_exit_is_called_in_the_order_of_a_script():
    """What the library has to do at the end comes before `leaving` ends the process."""
    status, output, _ = alike("-c", AT_EXIT, env=os.environ | {"PYTHONPATH": SUPPORT})
    assert (status, output) == (0, "of the script\nan engine is closed\n")


def test_a_process_is_waited_for_and_signalled():
    process = interpreters.start(["-c", "print('here', flush=True); input()"], stdout=-1, stdin=-1, text=True)
    assert process.stdout.readline() == "here\n" and process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == process.poll() == process.returncode == -signal.SIGINT
    process.communicate()


def test_threads_that_wait_for_the_same_process_are_all_told():
    for _ in range(5):
        process = interpreters.start(["-c", "input()"], stdin=-1, text=True)
        with ThreadPoolExecutor(3) as threads:
            waiting = [threads.submit(process.wait) for _ in range(3)]
            process.communicate("\n")
            assert [one.result(60) for one in waiting] == [0, 0, 0]


@pytest.mark.parametrize("name", ["HF_HUB_DISABLE_TELEMETRY", "OMP_NUM_THREADS", "PYTHONHASHSEED"])
def test_where_a_variable_is_read_early_a_new_interpreter_reads_it(name):
    code = "import os; print(open('/proc/self/cmdline').read())"
    for environment, is_fork in ((os.environ, True), (os.environ | {name: "2"}, False)):
        said = interpreters.run(["-c", code], env=environment).stdout
        assert (Path(forkserver.__file__).name in said) == is_fork


PARENT = """
import interpreters, os, signal
process = interpreters.start(["-c", "import time; time.sleep(600)"])
server = open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[1]
print(process.pid, server, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_and_its_forks_end_with_the_process_that_has_started_them():
    done = interpreters.run(
        ["-c", PARENT], start=interpreters.start_anew, env=os.environ | {"PYTHONPATH": SUPPORT}
    )
    assert done.returncode == -signal.SIGKILL
    fork, server = map(int, done.stdout.split())
    for process in (fork, server):
        wait_until(lambda process=process: not Path(f"/proc/{process}").exists())
