"""Many clients that ask a server, and how long the answers took."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from benchmarks.served import Served


@dataclass(slots=True)
class Tally:
    """How long answers took, s, and which were wrong."""

    took: list[float] = field(default_factory=list)
    wrong: int = 0

    def figures(self, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.took) or [0.0]
        at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
        figures = {f"{name}_ms": round(1000 * value, 1) for name, value in at.items()}
        return {"per_s": round(len(self.took) / seconds, 1), **figures, "answers": len(self.took), "wrong": self.wrong}


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


async def pound(served: Served, path: str, clients: int, seconds: float, body: Any = None) -> Tally:
    """So many clients, each of which sends its next request when it has its answer."""
    tally, until = Tally(), time.monotonic() + seconds
    payload = json.dumps(body).encode() if body is not None else b""

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        while time.monotonic() < until:
            began = time.monotonic()
            writer.write(request("POST" if payload else "GET", path, served, payload))
            status = await _answer(reader)
            tally.took.append(time.monotonic() - began)
            tally.wrong += status >= 300
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


def request(method: str, path: str, served: Served, payload: bytes = b"") -> bytes:
    """One request as it is sent."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {served.token}"]
    if payload:
        head += ["Content-Type: application/json", f"Content-Length: {len(payload)}", f"Idempotency-Key: {uuid4()}"]
    return "\r\n".join([*head, "", ""]).encode() + payload


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
    await reader.readexactly(length)
    return int(head.split()[1])
