"""The command line: look into an outbox, send what is in it, run a training script, run the embedded Hub.

Exit codes: 0, nothing is left to be sent; 1, something is; 2, the command was not understood, or cannot be done
here: there is no outbox, it cannot be written to, a port is taken; 3, nothing is left, and something was lost.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..outbox import ledger
from ..outbox.control import Control
from ..outbox.push import CreateRepository, LookForOtherRun
from ..outbox.queue import Outbox
from ..settings import OUTBOX_NAME
from ..training.summary import counted

WATCH_EVERY = 5.0
"""Seconds between two looks of `sync --watch`."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pushes of training runs to the Hugging Face Hub: what waits, and sending it.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="output_dir of a run, or the outbox in it")]
Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="output_dir of a run, or the outbox in it")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


_script: list[dict[str, Any]] = []
"""What `run` was asked to run; it is run outside of typer, which has its own way with exceptions."""


def main() -> None:
    try:
        app()
    except SystemExit:
        if not _script:
            raise
    from .script_runner import run_script

    run_script(**_script[0])


def open_outbox(folder: Path) -> Outbox:
    """The outbox of a run's output folder, or the one that the folder is."""
    for candidate in (folder / OUTBOX_NAME, folder):
        if (candidate / "pushes").is_dir() or (candidate / "ledger.jsonl").is_file():
            return Outbox(candidate)
    typer.echo(
        f"There is no outbox in {folder}. Give the output_dir of a run that had a HubSyncCallback; "
        f"the outbox is its folder {OUTBOX_NAME}.",
        err=True,
    )
    raise typer.Exit(2)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Shows what waits to be sent, what was sent last, and what went wrong."""
    rows = table_of(open_outbox(folder))
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        _print_table(rows)
    raise typer.Exit(_exit_code(rows))


def table_of(outbox: Outbox) -> list[dict[str, Any]]:
    """One row for each push that the outbox or its ledger knows, oldest first."""
    is_being_sent = outbox.is_being_sent()
    pending = {push.id: push for push in outbox.pending()}
    latest = outbox.ledger.latest()
    rows = []
    others = outbox.other_formats
    for push_id in sorted(pending.keys() | latest.keys() | others.keys(), key=lambda name: (len(name), name)):
        push, entry = pending.get(push_id), latest.get(push_id) or ledger.Entry(push_id, ledger.QUEUED)
        # What only makes sure of the repository does not count: the next push does that, too.
        is_awaited = push is not None and not isinstance(push.content, CreateRepository | LookForOtherRun)
        state = entry.state
        if state == ledger.RUNNING and not is_being_sent:
            state = ledger.WAITING  # whoever sent it has ended
        rows.append(
            {
                "push": push_id,
                "state": state,
                "lost": entry.is_loss,
                "waits": push_id in others or (is_awaited and state not in ledger.FINAL),
                "message": push.message if push else entry.message,
                "step": push.step if push else None,
                "bytes": push.size if push else entry.size,
                "commit": entry.commit,
                "by": entry.by,
                "why": others.get(push_id) or entry.why,
                "next_try": entry.next_try,
                "notes": entry.notes,
            }
        )
    return rows


@app.command()
def sync(
    folders: Folders,
    watch: Annotated[bool, typer.Option("--watch", help="Go on and send what comes, until Ctrl-C.")] = False,
    patience: Annotated[
        float, typer.Option(help="Seconds without a success after which a folder is left for later.")
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Sends what waits, from this machine or another one with a copy of the folder."""
    outboxes = [open_outbox(folder) for folder in folders]
    writable = list(outboxes)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for outbox in list(writable):
                try:
                    drain(outbox, patience, quiet=as_json)
                except OSError as error:
                    _say_cannot_write(outbox, error)
                    writable.remove(outbox)
            if not watch or not writable:
                break
            time.sleep(WATCH_EVERY)
    rows = [row for outbox in outboxes for row in table_of(outbox)]
    left, lost = ([row for row in rows if row[what]] for what in ("waits", "lost"))
    if as_json:
        typer.echo(json.dumps({"left": left, "lost": lost}, ensure_ascii=False, indent=1))
    else:
        if left:
            what = counted(len(left), "push is", "pushes are")
            typer.echo(f"{what} not sent; `hub-callbacks status` shows why.", err=True)
        if lost:
            what = counted(len(lost), "push has", "pushes have")
            typer.echo(f"{what} lost something; `hub-callbacks status` shows what, and where it is.", err=True)
    raise typer.Exit(2 if writable != outboxes else _exit_code(rows))


def _exit_code(rows: list[dict[str, Any]]) -> int:
    if any(row["waits"] for row in rows):
        return 1
    return 3 if any(row["lost"] for row in rows) else 0


def drain(outbox: Outbox, patience: float, quiet: bool = False) -> None:
    """Sends what waits in an outbox, as long as there is a success within `patience` seconds.

    Raises:
        OSError: when the outbox cannot be written to.
    """
    from ..hub.repository import Repository
    from ..outbox.control import Stalled
    from ..pushing.pusher import Pusher

    try:
        Pusher(outbox, Repository(places=outbox.places), _Foreground(outbox, patience, quiet)).run()
    except Stalled as error:
        typer.echo(f"{error} Run the command again to send it.", err=True)


class _Foreground(Control):
    """Says what happens, and stops when nothing has worked for a while."""

    def __init__(self, outbox: Outbox, patience: float, quiet: bool) -> None:
        super().__init__(drain=True)
        self._ledger = ledger.Ledger(outbox.ledger.path)
        self._ledger.new_entries()
        self._patience = patience
        self._quiet = quiet
        self._has_waited = False
        self._last_success = time.monotonic()

    def report(self) -> None:
        for entry in self._ledger.new_entries():
            if entry.state in ledger.FINAL:
                self._last_success = time.monotonic()
            if not self._quiet and entry.state != ledger.RUNNING:
                typer.echo(_line(entry))
        self.stop = time.monotonic() - self._last_success > self._patience

    def waits_for_turn(self, sender: str) -> None:
        if not self._has_waited:
            self._has_waited = True
            typer.echo(f"{sender[:1].upper()}{sender[1:]} sends from here; waiting until it cannot.", err=True)

    def sleep(self, seconds: float, *, until_new: bool = True) -> None:
        left = self._patience - (time.monotonic() - self._last_success)
        self.stop = self.stop or left <= 0
        super().sleep(min(seconds, max(left, 0)), until_new=until_new)


def _say_cannot_write(outbox: Outbox, error: OSError) -> None:
    typer.echo(
        f"{outbox.root} cannot be written to ({error.strerror or error}). What waits in it is still there. Run "
        "the command as somebody who may write there, or `hub-callbacks sync` on a copy of the folder.",
        err=True,
    )


@app.command()
def drop(
    folder: Folder,
    pushes: Annotated[
        list[str] | None, typer.Argument(metavar="[PUSH]...", help="numbers, as in `status`")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every push that waits.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Takes pushes out of the outbox for good, and frees their disk space; what was lost is forgotten."""
    outbox = open_outbox(folder)
    pending = {push.id: push for push in outbox.pending()}
    lost = {name: entry for name, entry in outbox.ledger.latest().items() if entry.is_loss}
    names = list(pending) if everything else [f"{int(p):06d}" if p.isdecimal() else p for p in pushes or []]
    unknown = [name for name in names if name not in pending.keys() | lost.keys()]
    if unknown or not (names or everything):
        typer.echo(f"Not waiting: {', '.join(unknown)}" if unknown else "Name pushes, or use --all.", err=True)
        raise typer.Exit(2)
    titles = {
        name: f"{name}  {pending[name].message}  {pending[name].size:,} bytes"
        if name in pending
        else f"{name}  {lost[name].message}"
        for name in names
    }
    if names and not yes:
        typer.echo("\n".join(titles.values()))
        typer.confirm("They are not on the Hub. Drop them?", abort=True)
    for name in names:
        try:
            if name in pending:
                outbox.drop(pending[name])
            else:
                outbox.ledger.append(ledger.Entry(name, ledger.DROPPED, message=lost[name].message))
        except OSError as error:
            _say_cannot_write(outbox, error)
            raise typer.Exit(2) from None
        typer.echo(f"dropped  {titles[name]}")


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(
    target: Annotated[str, typer.Argument(metavar="SCRIPT", help="Script, or module with -m.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARGS]...", help="its arguments")] = None,
    is_module: Annotated[bool, typer.Option("-m", help="Run a module, as `python -m` does.")] = False,
) -> None:
    """Runs a training script, with a HubSyncCallback in every Trainer that it makes.

    With several processes: torchrun --nproc_per_node=2 -m hub_callbacks run train.py
    """
    _script.append({"target": target, "arguments": arguments or [], "is_module": is_module})


@app.command()
def resume(
    repo: Annotated[str, typer.Argument(metavar="REPO", help='repository, "name" or "owner/name"')],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="output_dir of the run that is to continue")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; main if left out. {step} stands for any number.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetches the newest complete checkpoint into DIR/checkpoint-N, unless one as new is there. Exits with 1
    when there is none, or it cannot be fetched."""
    from ..errors import HubSyncError
    from ..hub.client import address
    from ..hub.downloads import Downloads
    from ..resuming.processes import OneProcess
    from ..resuming.search import Search
    from ..settings import resolve

    if folder.exists() and not folder.is_dir():
        typer.echo(f"{folder} is a file. Give the folder that the run's output_dir is to be.", err=True)
        raise typer.Exit(2)
    try:
        settings = resolve(overrides={"output_dir": folder, "hub_model_id": repo, "hub_revision": revision})
    except HubSyncError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    outbox = Outbox(settings.outbox)
    downloads = Downloads(outbox.places.name_of(address(), repo))
    search = Search(folder, outbox, downloads, revision)
    try:
        found, trouble = search.run(OneProcess()), None
    except HubSyncError as error:
        found, trouble = None, str(error)
    if found is None and trouble is None:
        missing = f": {downloads.missing}. Check the name, the revision and the token" if downloads.missing else ""
        trouble = f"No complete checkpoint was found in {folder} or in {repo}{missing}."
    if as_json:
        row = {
            "checkpoint": str(found.folder) if found else None,
            "step": found.step if found else None,
            "source": found.source if found else None,
            "passed_over": search.passed_over,
            "error": trouble,
        }
        typer.echo(json.dumps(row, ensure_ascii=False, indent=1))
    else:
        for why in search.passed_over:
            typer.echo(f"Not taken: {why.rstrip('.')}.", err=True)
        typer.echo(str(found.folder) if found else trouble, err=found is None)
    raise typer.Exit(0 if found else 1)


@app.command()
def serve(
    root: Annotated[Path, typer.Option(help="Folder that holds the repositories.")] = Path("local-hub"),
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    name: Annotated[list[str] | None, typer.Option(help="Name it is called by, too; may be repeated.")] = None,
) -> None:
    """Runs the embedded Hub until Ctrl-C."""
    try:
        from ..localhub import serve as run
    except ImportError as error:
        typer.echo(f"The embedded Hub needs its extra: pip install 'hub_callbacks[local]' ({error})", err=True)
        raise typer.Exit(2) from None
    try:
        run(root, port, host, name or ())
    except (RuntimeError, OSError) as error:
        typer.echo(getattr(error, "strerror", None) or str(error), err=True)
        raise typer.Exit(2) from None


def _line(entry: ledger.Entry) -> str:
    details = {
        ledger.DONE: f"{(entry.size or 0) / 1e6:,.1f} MB in {entry.seconds} s  {entry.url or ''}",
        ledger.SUPERSEDED: f"taken over by {entry.by}",
    }.get(entry.state, entry.why or "")
    notes = "".join(f"\n        {note}" for note in entry.notes)
    return f"{entry.push}  {entry.state:<10}  {entry.message}  {details}".rstrip() + notes


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("push", "state", "message", "size", "commit", "details", box=None)
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f} MB"
        details = row["why"] or (f"taken over by {row['by']}" if row["by"] else "")
        details = "; ".join(row["notes"]) if row["lost"] and row["notes"] else details
        if row["next_try"] and row["waits"]:
            details += f" (next try in {max(0, row['next_try'] - time.time()):.0f} s)"
        table.add_row(row["push"], row["state"], row["message"], size, (row["commit"] or "")[:8], details)
    Console(highlight=False, markup=False).print(table)
