"""From a spec to its graph of steps. Torch-free: the API plans, prices and stores; workers run what it planned.

A step's key says what it is made from, so equal work is found again wherever it was done.
"""

from __future__ import annotations

from engine.datasets import Facts
from engine.errors import ErrorReport
from engine.feasibility import impossibilities
from engine.plan.downloads import another_form, export, package
from engine.plan.draft import Draft
from engine.plan.graph import CODE_VERSIONS, ContinualRow, Plan, Row, Step, StepKind
from engine.plan.images import subjects_of
from engine.plan.memory import needed
from engine.plan.students import continual_rows, full_data, rows_of
from engine.spec import JobSpec

__all__ = ["CODE_VERSIONS", "ContinualRow", "Plan", "Row", "Step", "StepKind", "another_form", "check", "plan"]


def check(spec: JobSpec, facts: Facts) -> list[ErrorReport]:
    """What this spec asks for that its data set cannot give; empty when it can be run."""
    return [error.report for error in impossibilities(spec, facts)]


def plan(spec: JobSpec, facts: Facts) -> Plan:
    """The graph of a job. Raises SpecInvalid when the data set cannot give what is asked (see `check`)."""
    for error in impossibilities(spec, facts):
        raise error
    draft = Draft.begin(spec, facts)
    full = full_data(draft)
    rows: list[Row] = []
    continual: list[ContinualRow] = []
    packages = []
    for ipc in (*sorted(spec.nested), spec.ipc):
        subjects = subjects_of(draft, ipc)
        own, labels = rows_of(draft, subjects, ipc)
        groups = continual_rows(draft, subjects, ipc)
        packages.append(package(draft, subjects["distilled"], labels, ipc, own, groups, full))
        for form in spec.exports:
            export(draft, form, packages[-1])
        rows, continual = own + rows, groups + continual  # the job's own ipc first
    steps = tuple(_weighed(step, spec, facts) for step in draft.in_order())
    return Plan(steps=steps, rows=tuple(rows), continual=tuple(continual), package=packages[-1])


def _weighed(step: Step, spec: JobSpec, facts: Facts) -> Step:
    """With the memory that it takes, which is no part of its key."""
    memory = needed(step, spec, facts)
    return step.model_copy(update={"host_bytes": memory.host_bytes, "device_bytes": memory.device_bytes})
