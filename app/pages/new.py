"""The form of a new job. It works by posting; scripts post it too while one types, and show what comes back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import datasets, jobs, planning, problems, uploads, visibility, weights
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Unprocessable
from app.models import User, Visibility
from app.pages import failure
from app.pages import form as forms
from app.pages.render import page
from app.services import Services
from engine.errors import ErrorReport
from engine.methods import TITLES
from engine.presets import PRESETS, Preset
from engine.sources import Folder, Upload
from engine.spec import MOST_TEACHERS, JobSpec

DEMO = "demo"
BASIC = frozenset({"/ipc", "/teachers/0/network", "/teachers/0/epochs", "/evaluation/students", "/evaluation/runs"})
ADD, REMOVE, CHECK = "add-teacher", "remove-teacher", "check"
MAX_KEY = 255  # as the API has it
SEEN_BY: TypeAdapter[visibility.Chosen] = TypeAdapter(visibility.Chosen)
Valid = TypeVar("Valid")
Posted = Mapping[str, Sequence[str]]


async def posted_form(request: Request) -> Posted:
    """Every value of every field that was posted as text. Raises Unprocessable."""
    form = await request.form()
    posted = {name: [value for value in form.getlist(name) if isinstance(value, str)] for name in form}
    if "\0" in "".join(value for values in posted.values() for value in values):
        raise Unprocessable("A field holds a NUL character, which no text has.", hint="Leave it out.")
    return posted


PostedDep = Annotated[Posted, Depends(posted_form)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A form on its way to a job."""

    spec: dict[str, Any]
    name: str = ""
    preset: str = ""
    visibility: str = ""  # empty: as the server has it
    key: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which presets are shown: the part of the address after the question mark."""

    set: str = ""  # the data set's title
    ipc: str = ""
    method: str = ""

    @property
    def any(self) -> bool:
        return bool(self.set or self.ipc or self.method)

    def take(self, preset: Preset) -> bool:
        """Whether a preset is one of them."""
        found = (preset.group, str(preset.spec.ipc), preset.spec.method.method)
        return all(not wanted or wanted == own for wanted, own in zip(self._wanted, found, strict=True))

    @property
    def _wanted(self) -> tuple[str, str, str]:
        return self.set, self.ipc, self.method


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a new form is filled in from: a preset, perhaps with a data set of one's own, or a job."""

    preset: str = ""
    clone: str = ""
    remedy: str = ""
    upload: str = ""  # an uploaded data set's id
    folder: str = ""  # path of a folder of classes
    weights: str = ""  # id of weights that were sent

    @property
    def dataset(self) -> dict[str, Any]:
        """The part of a spec, where it is not the preset's."""
        if self.upload:
            return {"dataset": {"source": "upload", "id": self.upload}}
        return {"dataset": {"source": "folder", "path": self.folder}} if self.folder else {}


def router() -> APIRouter:
    """/jobs/new and /jobs/demo."""
    routes = APIRouter(prefix="/jobs")

    @routes.get("/new")
    def blank(
        request: Request,
        services: ServicesDep,
        user: UserDep,
        shown: Annotated[Filters, Depends()],
        origin: Annotated[Origin, Depends()],
    ) -> HTMLResponse:
        if origin.clone:
            with services.database.read() as session:
                known = jobs.get(session, user, origin.clone)
            spec, seen_by = failure.remedied(known.spec, known.error, origin.remedy), visibility.of_a_copy(user, known)
            draft = Draft(spec=spec, name=known.name, visibility=seen_by or "")
            return _page(request, services, user, draft, filters=shown)
        chosen = PRESETS.get(origin.preset) or PRESETS[DEMO]
        spec = chosen.spec.model_dump(mode="json") | origin.dataset
        if origin.weights:
            found = weights.get(services, user, origin.weights)
            spec["teachers"] = [spec["teachers"][0] | found.teacher]
        draft = Draft(spec=spec, preset=chosen.name)
        return _page(request, services, user, draft, filters=shown)

    @routes.post("/new")
    def filled_in(request: Request, services: ServicesDep, user: WriterDep, posted: PostedDep) -> Response:
        draft, action = read_draft(posted), _last(posted, "action")
        if action in (ADD, REMOVE, CHECK):
            return _page(request, services, user, draft)
        try:
            spec, name, seen_by = _valid_spec(draft), _valid_name(draft), _valid_visibility(draft)
            return _see_job(submit(services, user, spec, name, draft.key, seen_by))
        except Unprocessable as error:
            return _page(request, services, user, draft, error)

    @routes.post("/demo")
    def demo(services: ServicesDep, user: WriterDep, posted: PostedDep) -> Response:
        preset = PRESETS[DEMO]
        return _see_job(submit(services, user, preset.spec, preset.title, key_of(posted)))

    return routes


def submit(
    services: Services, user: User, spec: JobSpec, name: str | None, key: str, seen_by: str | None = None
) -> str:
    """Plan and write down. Returns the job's id; the same key gives the same job."""
    job, _ = planning.submit(services, user, spec, name, key, seen_by)
    return job.id


def read_draft(posted: Posted) -> Draft:
    """The form as it was posted, with a teacher more or less where that was asked for: FADRM with several is FADRM+."""
    spec, action = forms.read(posted), _last(posted, "action")
    teachers = spec["teachers"]
    if action == ADD and len(teachers) < MOST_TEACHERS:
        teachers.append(dict(teachers[-1]))
    if action == REMOVE and len(teachers) > 1:
        teachers.pop()
    if action in (ADD, REMOVE) and spec["method"]["method"] in ("fadrm", "fadrm+"):
        spec["method"]["method"] = "fadrm" if len(teachers) == 1 else "fadrm+"  # their fields are the same
    return Draft(
        spec=spec,
        name=_last(posted, "name").strip(),
        preset=_last(posted, "preset"),
        visibility=_last(posted, "visibility"),
        key=key_of(posted),
    )


def key_of(posted: Posted) -> str:
    """The key that the form was given; a new one where it is not one of ours."""
    given = _last(posted, "idempotency_key")
    return given if 0 < len(given) <= MAX_KEY else secrets.token_hex(16)


def _last(posted: Posted, name: str) -> str:
    return (posted.get(name) or [""])[-1]


def _valid_spec(draft: Draft) -> JobSpec:
    try:
        return JobSpec.model_validate(draft.spec)
    except ValidationError as error:
        raise problems.invalid(error.errors(), draft.spec, prefix="/spec") from error


def _valid_name(draft: Draft) -> str | None:
    return valid_name(draft.name) if draft.name else None


def _valid_visibility(draft: Draft) -> str | None:
    return _valid(SEEN_BY, draft.visibility, "/visibility") if draft.visibility else None


def valid_name(text: str) -> str:
    """A job's name as it is kept. Raises Unprocessable."""
    return _valid(planning.NAME, text, "/name")


def _valid(kind: TypeAdapter[Valid], text: str, pointer: str) -> Valid:
    try:
        return kind.validate_python(text)
    except ValidationError as error:
        raise problems.invalid(error.errors(), text, prefix=pointer) from error


def _see_job(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303)


def _page(
    request: Request,
    services: Services,
    user: User,
    draft: Draft,
    error: Unprocessable | None = None,
    filters: Filters | None = None,
) -> HTMLResponse:
    """The form with what it would do, or with what is wrong with it."""
    plan = None
    if error is None:
        try:
            spec, name = _valid_spec(draft), _valid_name(draft)
            plan = planning.plan_out(
                services, planning.prepare_spec(services, user, spec, name, request.app.state.facts), user
            )
        except Unprocessable as found:
            error = found
    errors = _of_fields(error) if error else []
    return page(
        request,
        "new.html",
        status=422 if error and request.method == "POST" else 200,
        draft=draft,
        visibility=draft.visibility or _usual(services, user),
        form=forms.build(draft.spec, [report for report in errors if report.pointer != "/name"]),
        name_errors=[report for report in errors if report.pointer == "/name"],
        refusal=error,
        request_method=request.method,
        plan=plan,
        basic=BASIC,
        **_presets(filters or Filters(), draft.preset),
        folders=_folders(services),
        uploads=[
            (one.dataset.id, one.title) for one in uploads.listed(services, user) if isinstance(one.dataset, Upload)
        ],
        max_teachers=MOST_TEACHERS,
    )


def _usual(services: Services, user: User) -> Visibility:
    with services.database.read() as session:
        return visibility.chosen(session, user, None, services.settings.visibility)


def _presets(filters: Filters, chosen: str) -> dict[str, Any]:
    """What there is to start from, and what it can be filtered by."""
    presets = list(PRESETS.values())
    return {
        "presets": presets,
        "shown": [preset for preset in presets if filters.take(preset)],
        "chosen": PRESETS.get(chosen),
        "filters": filters,
        "groups": [(group, group) for group in dict.fromkeys(preset.group for preset in presets)],
        "ipcs": [(str(ipc), f"{ipc} per class") for ipc in sorted({preset.spec.ipc for preset in presets})],
        "methods": [(name, title) for name, title in TITLES.items()],
    }


def _of_fields(error: Unprocessable) -> list[ErrorReport]:
    """Pointers into the request's body, as pointers into the spec; an error without a field is one too."""
    reports = error.errors or [ErrorReport(code=error.code, message=error.detail, hint=error.hint)]
    return [report.model_copy(update={"pointer": report.pointer.removeprefix("/spec")}) for report in reports]


def _folders(services: Services) -> list[str]:
    """Paths to offer for a folder of classes."""
    found = [entry.dataset for entry in datasets.catalogue(services.settings.data_roots)]
    return [dataset.path for dataset in found if isinstance(dataset, Folder)]
