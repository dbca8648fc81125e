"""`python -m hub_callbacks.localhub --root DIR --port N [--host ADDRESS] [--name NAME]`"""

from __future__ import annotations

import argparse

from .server import serve


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hub_callbacks.localhub", description="Runs a Hugging Face Hub on this machine."
    )
    parser.add_argument("--root", required=True, help="folder for repositories, users and large files")
    parser.add_argument("--port", type=int, default=0, help="TCP port; a free one where left out")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; loopback where left out")
    parser.add_argument("--name", action="append", default=[], help="name it is called by, too; may be repeated")
    options = parser.parse_args()
    serve(options.root, options.port, options.host, options.name)


if __name__ == "__main__":
    main()
