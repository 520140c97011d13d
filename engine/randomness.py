"""Random numbers that depend on where they are used, not on what ran before."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(seed: int, *place: str | int) -> int:
    """A seed of 63 bits for one place of one job."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *place: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers for one place of one job: they depend on (seed, place) only, not on what ran before.

    Decisions (boxes, orders, flips) are drawn on the CPU, so that every device takes the same ones.
    """
    return torch.Generator(device).manual_seed(seed_of(seed, *place))


@contextmanager
def repeatable(seed: int, *place: str | int, device: torch.device | str = "cpu") -> Iterator[None]:
    """What draws from torch's own streams inside (dropout, fresh weights) does so from (seed, place); outside, nothing changes."""
    with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed_of(seed, *place))
        yield
