"""A job that is real and tiny: eight-pixel digits, a narrow network, seconds of recovery that can be interrupted."""

from __future__ import annotations

from sqlalchemy import func, select

from app.models import Event, Step
from engine.datasets import describe
from engine.methods import Fadrm, Patches
from engine.plan import Plan, StepKind, plan
from engine.sources import Digits
from engine.spec import Evaluation, JobSpec, Labels, Resources, Teacher
from engine.store import Store
from tests.worker.stage import Stage

SPEC = JobSpec(
    dataset=Digits(resolution=8),
    ipc=2,
    method=Fadrm(budgets=(150, 150)),
    teachers=(Teacher(network="convnet3_w32", epochs=1, batch_size=64, optimizer="adamw", lr=0.01),),
    patches=Patches(candidates=20, crops=2),
    labels=Labels(epochs=2),
    evaluation=Evaluation(students=(), baselines=(), labels=("soft",)),
    flip=False,
    resources=Resources(ipcs_per_step=1),
)
SETTINGS = {"FADRM_THREADS": "1", "FADRM_CHECKPOINT_S": "0.2", "FADRM_SELF_FENCE_S": "20", "FADRM_LEASE_S": "30"}


def tiny_plan(spec: JobSpec = SPEC) -> Plan:
    """Its steps: prepare, teach, select, two shards of recover, relabel, package."""
    return plan(spec, describe(spec.dataset))


def images_of(stage: Stage) -> dict[str, bytes]:
    """The images that the recover steps left."""
    return images_below(stage.store, tiny_plan())


def images_below(store: Store, steps: Plan) -> dict[str, bytes]:
    """Every file that the recover steps left, but for manifests, which hold times, and previews, which are for looking."""
    folders = [store.step(step.key) for step in steps.steps if step.kind == StepKind.RECOVER]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    images = [path for path in files if path.name != "manifest.json" and path.parent.name != "previews"]
    return {str(path.relative_to(store.root)): path.read_bytes() for path in images}


def until_recovering(stage: Stage, *, after: int = 0) -> None:
    """Wait until more than so many checkpoints of recover steps have been written down."""
    shards = {step.key for step in tiny_plan().steps if step.kind == StepKind.RECOVER}

    def checkpoints() -> int:
        with stage.database.read() as session:
            query = select(func.count()).select_from(Event).join(Step, Step.id == Event.step_id)
            return session.scalar(query.where(Event.kind == "checkpoint", Step.key.in_(shards))) or 0

    stage.until(lambda: checkpoints() > after, 60.0)
