"""How a script of several processes ends; to be imported before anything else.

An interpreter that ends while gloo's threads run may abort, though the script has done its work, and more often
on a busy machine; `destroy_process_group` helps only where nothing else holds the group (pytorch/pytorch#190489).
So the last of the functions that are called at exit ends the process.
"""

from __future__ import annotations

import atexit
import os
import sys

_status: int | None = None


def begin() -> None:
    """The script begins: from here on, its process ends in this way, and in failure."""
    global _status
    _status = 1


def well() -> None:
    """The script has come to its end: what is called at exit is all that is left."""
    global _status
    _status = 0


@atexit.register
def _leave() -> None:
    if _status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status)
