"""What a benchmark found, as JSON and as lines for people. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.timing import Measured, Peaks, limit_s, ratio, unit_s

SUMS = {"labels + student, 32 px": ("labels32", "student32"), "labels + student, 64 px": ("labels64", "student64")}
HUNDRED_THOUSAND = 100_000


def findings(measured: Mapping[str, Sequence[Measured]], peaks: Peaks) -> dict[str, Any]:
    """Of each side: seconds per unit, limit, share of it, memory; and how each compares with the first."""
    sides = {side: _of_side(many, peaks) for side, many in measured.items()}
    first, *others = measured
    ratios = {side: ratio(measured[first], measured[side]).model_dump() for side in others}
    return {"summary": sides, "ratios": ratios}


def _of_side(many: Sequence[Measured], peaks: Peaks) -> dict[str, Any]:
    seconds, least = unit_s(many)
    found: dict[str, Any] = {
        "unit_s": seconds,
        "least_unit_s": least,
        "first_s": median(one.first_s for one in many),
        "precision": many[0].precision,
        "host_gib": max(one.host_bytes for one in many) / 2**30,
        "device_gib": max(one.device_bytes for one in many) / 2**30,
    }
    if many[0].flop:
        limit, binds = limit_s(many[0], peaks)
        found |= {"limit_s": limit, "limit_by": binds, "share_of_limit": limit / seconds}
        found["share_of_flop_peak"] = many[0].flop / peaks.flop_per_s[many[0].precision] / seconds
    if many[0].parts_s:
        found["parts_s"] = many[0].parts_s
    return found


def head(told: Mapping[str, Any]) -> str:
    facts, peaks = told["machine"], told["peaks"]
    rates = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in peaks["flop_per_s"].items())
    device = facts["gpu"] or facts["cpu"]
    return (
        f"{device}, {facts['cores']} cores, torch {facts['torch']}\n"
        f"measured peaks: {rates} TFLOP/s, copy {peaks['bytes_per_s'] / 1e9:.1f} GB/s\n"
    )


def lines(name: str, found: Mapping[str, Any]) -> str:
    """A few lines on one benchmark."""
    told = [f"{name} ({found['unit']}s)"]
    for side, facts in found["summary"].items():
        told.append(f"  {side:<12}{_side(facts)}")
    for side, entry in found["ratios"].items():
        spread = f"rounds {min(entry['rounds']):.2f} to {max(entry['rounds']):.2f}"
        told.append(f"  {side}: {entry['median']:.2f}x, best {entry['best']:.2f}x, {spread}")
    if found["workload"]["kind"] == "service":
        told += _overheads(found["summary"])
    if found["workload"]["kind"] == "read":
        seconds = found["summary"]["engine"]["unit_s"] * HUNDRED_THOUSAND
        told.append(f"  100,000 images would take the engine {seconds:.0f} s")
    for what, entry in found.get("check", {}).items():
        verdict = "the same" if entry["distance"] <= entry["allowed"] else "NOT THE SAME"
        told.append(f"  {what}: {verdict}, {entry['distance']:.1e} apart (allowed {entry['allowed']:.0e})")
    return "\n".join(told)


def _overheads(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each way of running a step adds to the one inside it. A whole step is its `first_s`."""
    names = list(sides)
    pairs = [(inner, outer, sides[inner]["first_s"], sides[outer]["first_s"]) for inner, outer in pairwise(names)]
    return [f"  {outer} beside {inner}: {b - a:+.2f} s, {100 * (b / a - 1):+.1f} %" for inner, outer, a, b in pairs]


def _side(facts: Mapping[str, Any]) -> str:
    told = f"{1 / facts['unit_s']:>10.4g} a second ({facts['precision']}), first after {facts['first_s']:.1f} s, "
    told += f"{facts['host_gib']:.2f} GiB"
    if facts["device_gib"]:
        told += f" and {facts['device_gib']:.2f} GiB on the device"
    if "share_of_limit" in facts:
        share, operations = 100 * facts["share_of_limit"], 100 * facts["share_of_flop_peak"]
        told += f", {share:.0f} % of the limit by {facts['limit_by']} ({operations:.0f} % of the arithmetic peak)"
    if "parts_s" in facts:
        told += "; " + ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in facts["parts_s"].items())
    return told


def sums(results: Mapping[str, Any]) -> str:
    """What labels and students are together, where both were measured."""
    told = []
    for title, names in SUMS.items():
        parts = [results[name]["summary"] for name in names if "summary" in results.get(name, {})]
        if len(parts) == len(names):
            plain, ours = (sum(part[side]["unit_s"] for part in parts) for side in ("yardstick", "engine"))
            told.append(f"{title}: {plain / ours:.2f}x")
    return "\n".join(told)
