"""A worker that plays: it claims steps and tells engine events by the real rules, with made-up curves and real PNG files."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from sqlalchemy.orm import Session

from app import claims, leases
from app.models import Worker, utc_now
from app.services import Services
from engine import events
from engine.errors import ErrorReport
from engine.plan import StepKind
from engine.store import write_manifest

TILE, GAP, COLUMNS = 16, 2, 10
HOLDER = claims.Holder(worker="bench:cpu:0", host="bench", device="cpu")
TEACHER_PCT = 97.5
ENDS = {"distilled": 94.6, "rded": 93.8, "patches": 93.5, "random": 91.9}


class Player:
    """Does the steps of whatever is queued, one after another, and stops where a test wants to look."""

    def __init__(self, services: Services, seed: int = 0) -> None:
        self.services = services
        self.random = random.Random(seed)
        self.lease: leases.Lease | None = None
        self._told: Iterator[list[events.Event]] = iter(())

    def play(self, *, until: StepKind | None = None, batches: int | None = None) -> None:
        """Go on until a step of that kind has told so many batches of events; without a kind, until nothing is left."""
        while self.lease is not None or self.claim():
            assert self.lease is not None
            if until is not None and self.lease.step.kind == until:
                self._some(batches)
                return
            self._some(None)

    def claim(self) -> bool:
        """Take the next step."""
        self.beat()
        with self.services.database.write() as session:
            self.lease = claims.claim(session, HOLDER)
        if self.lease is None:
            return False
        self._told = self._events(self.lease)
        return True

    def beat(self) -> None:
        """Say that this worker is there."""
        with self.services.database.write() as session:
            self._present(session)

    def _present(self, session: Session) -> None:
        row = session.get(Worker, HOLDER.worker)
        if row is None:
            session.add(
                Worker(id=HOLDER.worker, host="bench", pid=1, device="cpu", device_name="2 cores", version="0.1.0")
            )
        else:
            row.seen_at = utc_now()
            row.step_id = self.lease.step_id if self.lease else None

    def _some(self, batches: int | None) -> None:
        """Tell so many batches; all of them, and the step is finished."""
        assert self.lease is not None
        if batches == 0:
            return
        for told, batch in enumerate(self._told, start=1):
            self.tell(batch)
            if told == batches:
                return
        self.finish()

    def tell(self, batch: list[events.Event]) -> None:
        """Record events as a worker does."""
        assert self.lease is not None
        files = {event.file: event.file for event in batch if isinstance(event, events.Preview)}
        with self.services.database.write() as session:
            leases.record(session, self.lease, batch, files)

    def finish(self) -> None:
        """The step is whole: a real manifest, and for the package a real zip."""
        assert self.lease is not None
        step, result = self.lease.step, self._result(self.lease)
        folder = self.services.store.attempt(step.key, self.lease.fence)
        if step.kind == StepKind.PACKAGE:
            (folder / "distilled.zip").write_bytes(b"PK\x05\x06" + bytes(18) + bytes(48_213))
            (folder / "card.md").write_text("# Score card\n")
        write_manifest(
            folder,
            key=step.key,
            kind=step.kind,
            params=step.params,
            needs=step.needs,
            result=result,
            environment={"device": "cpu"},
            seconds=2.5,
        )
        self.services.store.publish(step.key, folder)
        with self.services.database.write() as session:
            leases.finish(session, self.lease, result=result, seconds=2.5 + step.flop / 1e11)
        self.lease = None

    def fail(self, report: ErrorReport) -> None:
        """The step cannot be done."""
        assert self.lease is not None
        with self.services.database.write() as session:
            leases.fail(session, self.lease, report)
        self.lease = None

    def _result(self, lease: leases.Lease) -> dict[str, Any]:
        if lease.step.kind == StepKind.TEACH:
            return {"network": lease.step.params["teacher"]["network"], "top1_pct": TEACHER_PCT}
        if lease.step.kind == StepKind.EVALUATE:
            last = self._end(lease) + self.random.gauss(0, 0.5)
            return {"top1_last_pct": last, "top1_best_pct": last + 0.4, "best_epoch": 40}
        return {}

    def _end(self, lease: leases.Lease) -> float:
        soft = lease.step.params.get("labels") == "soft"
        return ENDS[_subject(lease.step.title)] - (0 if soft else 7)

    def _events(self, lease: leases.Lease) -> Iterator[list[events.Event]]:
        match lease.step.kind:
            case StepKind.TEACH:
                yield from self._epochs(lease, lease.step.params["teacher"]["epochs"], "teach", TEACHER_PCT)
            case StepKind.EVALUATE:
                yield from self._epochs(lease, lease.step.params["plan"]["epochs"], "evaluate", self._end(lease))
            case StepKind.RECOVER:
                yield from self._recovery(lease)
            case StepKind.SELECT:
                yield [events.Started(total=10, unit="images"), self._preview(0, 0)]
            case _:
                yield [events.Started(total=10, unit="images"), events.Progress(done=10, total=10, unit="images")]

    def _epochs(self, lease: leases.Lease, epochs: int, name: str, end: float) -> Iterator[list[events.Event]]:
        yield [events.Started(total=epochs, unit="epochs")]
        for epoch in range(epochs):
            share = 1 - math.exp(-6 * (epoch + 1) / epochs)
            values = {f"{name}.loss": 2.3 * (1 - share) + 0.05 + self.random.random() * 0.03}
            if name == "teach" or (epoch + 1) % lease.step.params["every"] == 0:
                values[f"{name}.top1"] = 10 + (end - 10) * share + self.random.gauss(0, 0.4)
            yield [
                events.Metric(x=epoch, values=values),
                events.Progress(done=epoch + 1, total=epochs, unit="epochs"),
            ]

    def _recovery(self, lease: leases.Lease) -> Iterator[list[events.Event]]:
        budgets = lease.step.params["recipe"]["budgets"]
        total, ends = sum(budgets), {sum(budgets[: index + 1]) for index in range(len(budgets) - 1)}
        yield [events.Started(total=total * 10, unit="image-iterations"), self._preview(0, total)]
        every = max(1, total // 40)
        for step in range(1, total + 1):
            batch: list[events.Event] = []
            if step % every == 0 or step in ends:
                ce, bn = 2.4 * math.exp(-4 * step / total) + 0.02, 1.4 * math.exp(-2 * step / total) + 0.3
                values = {"recover.loss": ce + bn, "recover.loss_ce": ce, "recover.loss_bn": bn}
                batch += [
                    events.Metric(x=step, values=values),
                    events.Progress(done=step * 10, total=total * 10, unit="image-iterations"),
                ]
            if step in ends:
                batch += [
                    self._preview(step, total),
                    events.Injection(x=step, alpha=0.5, size_from=TILE, size_to=TILE),
                    self._preview(step + 1, total),
                    events.Checkpointed(done=step * 10),
                ]
            elif step % max(1, total // 12) == 0:
                batch.append(self._preview(step, total))
            if batch:
                yield batch

    def _preview(self, x: int, total: int) -> events.Preview:
        """A sheet in the store; the file's name is its hash, as `record` wants it."""
        digest = self.services.store.put_blob(sheet(x, total))
        names = [f"{digit} · ipc 0" for digit in range(10)]
        return events.Preview(
            x=x, total=total, file=digest, columns=COLUMNS, tile=TILE, labels=list(range(10)), names=names
        )


def _subject(title: str) -> str:
    for words, subject in (("distilled", "distilled"), ("RDED", "rded"), ("source", "patches")):
        if words in title:
            return subject
    return "random"


@cache
def sheet(x: int, total: int) -> bytes:
    """Ten digits, the farther the more they are overlaid by a pattern of their own."""
    image = Image.new("RGB", (COLUMNS * (TILE + GAP) - GAP, TILE), "white")
    for digit in range(COLUMNS):
        image.paste(_tile(digit, x, x / max(total, 1)), (digit * (TILE + GAP), 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _tile(digit: int, x: int, share: float) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), "black")
    ImageDraw.Draw(tile).text((4, 0), str(digit), fill="white", font=ImageFont.load_default(14))
    noise = random.Random(digit * 1000 + x)
    for place in range(TILE * TILE):
        row, column = divmod(place, TILE)
        wave = 60 * share * math.sin(row * 0.9 + digit) * math.cos(column * 0.7 - digit)
        old = tile.getpixel((column, row))
        assert isinstance(old, tuple)
        tint = (wave + noise.gauss(0, 30 * share), wave, -wave + noise.gauss(0, 30 * share))
        red, green, blue = (max(0, min(255, int(was + add))) for was, add in zip(old, tint, strict=True))
        tile.putpixel((column, row), (red, green, blue))
    return tile
