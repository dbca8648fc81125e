"""A Hugging Face Hub on this machine: a server that the unmodified clients work against.

See `LocalHub` for use from Python and `serve` for a process; `python -m hub_callbacks.localhub` starts one.
"""

from __future__ import annotations

from .faults import Answer, Fault, Hang, Injection, LoseResponse, Reset, Seen
from .server import LocalHub, serve

__all__ = ["Answer", "Fault", "Hang", "Injection", "LocalHub", "LoseResponse", "Reset", "Seen", "serve"]
