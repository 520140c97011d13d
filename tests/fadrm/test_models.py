"""What the client reads is what the server sends: every field, required and optional alike."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from app import datasets, links, planning, problems, sweeps, uploads, views, weights
from app.api import catalogue
from app.views import curves, history
from app.views import jobs as job_views
from app.views import sweeps as sweep_views
from app.views.results import RowOut, RunOut, TeacherOut
from app.views.stages import StageOut
from fadrm import jobs, models
from fadrm import sweeps as client_sweeps

PAIRS: dict[type[BaseModel], type[BaseModel]] = {
    models.FieldError: problems.FieldError,
    models.Problem: problems.Problem,
    models.Failure: job_views.JobError,
    models.Owner: job_views.OwnerOut,
    models.Stage: StageOut,
    models.Step: views.StepOut,
    models.PlannedStep: planning.PlannedStep,
    models.Estimate: planning.Estimate,
    models.Plan: planning.PlanOut,
    models.Run: RunOut,
    models.Row: RowOut,
    models.Teacher: TeacherOut,
    models.Results: views.ResultsOut,
    models.File: views.ArtifactOut,
    models.Files: views.ArtifactsOut,
    models.Export: views.ExportOut,
    models.Link: links.LinkOut,
    models.Event: views.EventOut,
    models.EventPage: views.EventPage,
    models.LogLine: history.LogLine,
    models.LogPage: views.LogPage,
    models.Preview: curves.PreviewOut,
    models.Sheets: curves.SheetsOut,
    models.Previews: views.PreviewsOut,
    models.Upload: uploads.UploadOut,
    models.Weights: weights.WeightsOut,
    models.DataSet: datasets.DatasetOut,
    models.Preset: catalogue.PresetOut,
    models.Worker: views.WorkerOut,
    models.Axis: sweep_views.AxisOut,
    models.CellScore: sweep_views.CellScore,
    models.Cell: views.CellOut,
    models.PlannedJob: sweeps.PlannedJob,
    models.SweepPlan: sweeps.SweepPlanOut,
    models.Table: views.TableOut,
    jobs.Job: views.JobOut,
    jobs.JobPage: views.JobPage,
    client_sweeps.Sweep: views.SweepOut,
    client_sweeps.SweepPage: views.SweepPage,
}


def test_every_model_of_the_client_has_its_twin() -> None:
    own = {model for module in (models, jobs, client_sweeps) for model in vars(module).values() if is_model(model)}
    assert own - {models.Answer} == set(PAIRS)


def is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, models.Answer)


@pytest.mark.parametrize(("own", "server"), PAIRS.items(), ids=lambda model: model.__name__)
def test_every_field_of_the_client_is_one_of_the_server(own: type[BaseModel], server: type[BaseModel]) -> None:
    for name, field in own.model_fields.items():
        assert name in server.model_fields, f"{server.__name__} has no {name}"
        assert fits(field.annotation, server.model_fields[name].annotation), name


def fits(own: Any, server: Any) -> bool:
    """Whether what the server has there is what the client expects: null only where it may be null, models in pairs."""
    if isinstance(own, type) and own in PAIRS:
        return isinstance(server, type) and issubclass(PAIRS[own], server)
    if own is Any or own == server:
        return True
    if own in (str, dict) or get_origin(own) is dict:
        return not allows_null(server)
    if get_origin(own) in (Union, types.UnionType):
        inner = [kind for kind in get_args(own) if kind is not type(None)]
        others = [kind for kind in get_args(server) if kind is not type(None)] if allows_null(server) else [server]
        return all(any(fits(one, other) for one in inner) for other in others)
    if get_origin(own) is list:
        return get_origin(server) is list and fits(get_args(own)[0], listed(server))
    return False


def allows_null(kind: Any) -> bool:
    return type(None) in get_args(kind)


def listed(kind: Any) -> Any:
    """What a list is of; jobs and sweeps in a list are the summaries of what they are by themselves."""
    inner = get_args(kind)[0]
    return {views.JobSummary: views.JobOut, sweep_views.SweepSummary: views.SweepOut}.get(inner, inner)
