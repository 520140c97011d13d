"""The commands about workers, for who runs a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.remote import AsJson, connect, out, print_json

if TYPE_CHECKING:
    from fadrm.models import Worker

GIB = 2**30


def list_workers(as_json: AsJson = False) -> None:
    """List workers: what they work on, their memory, and who else is on their GPU."""
    from app import terminal

    with connect() as client:
        found = client.workers()
    if as_json:
        return print_json(found)
    rows = [(worker.id, _memory(worker), worker.version, _state(worker), worker.step or "–") for worker in found]
    return terminal.print_table(out, ("Id", "Memory free", "Version", "State", "At work on"), rows)


def drain(
    worker: Annotated[str | None, typer.Argument(help="Its id, as `fadrm workers` lists it.", metavar="WORKER")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All that are online.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take steps again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a worker take no steps: before its machine is restarted. What it works on leaves a checkpoint for another."""
    if (worker is None) != everyone:
        raise typer.BadParameter("give either a WORKER or --all")
    with connect() as client:
        names = [worker] if worker else [one.id for one in client.workers() if one.online]
        told = [client.resume_worker(name) if undo else client.drain_worker(name) for name in names]
    if as_json:
        return print_json(told)
    for one in told:
        rest = f"; it gives back: {one.step}" if one.step and not undo else ""
        out.print(f"{one.id} {'takes steps' if undo else 'takes no steps'}{rest}", highlight=False, markup=False)
    return None


def register(app: typer.Typer) -> None:
    """Add these commands to a program."""
    app.command("workers")(list_workers)
    app.command("drain")(drain)


def _memory(worker: Worker) -> str:
    free = worker.device_free_bytes or worker.host_free_bytes
    return "" if free is None else f"{free / GIB:.1f} GB"


def _state(worker: Worker) -> str:
    if not worker.online:
        return f"not heard of for {worker.age_seconds:.0f} s"
    extra = worker.model_extra or {}
    strangers, refuses = extra.get("strangers") or [], extra.get("refuses")
    taken = f"; its GPU is taken by {strangers[0]['name']}" if strangers else ""
    taken = f"; takes no steps: {refuses}" if refuses else taken
    return (f"drained by {worker.draining_by}" if worker.draining_by else "online") + taken
