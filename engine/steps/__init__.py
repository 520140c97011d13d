"""The kinds of steps: one file each, which speak to each other only by the files that they leave."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from engine.context import Context, Telling
from engine.params import (
    ContinualParams,
    EvaluateParams,
    ExportParams,
    ObserveParams,
    PackageParams,
    PrepareParams,
    RecoverParams,
    RelabelParams,
    SelectParams,
    TeachParams,
)
from engine.plan import StepKind
from engine.steps.continual import continual
from engine.steps.evaluate import evaluate
from engine.steps.export import export
from engine.steps.observe import observe
from engine.steps.package import package
from engine.steps.prepare import prepare
from engine.steps.recover import recover
from engine.steps.relabel import relabel
from engine.steps.select import select
from engine.steps.teach import teach

PARAMS: dict[StepKind, type[BaseModel]] = {
    StepKind.PREPARE: PrepareParams,
    StepKind.TEACH: TeachParams,
    StepKind.OBSERVE: ObserveParams,
    StepKind.SELECT: SelectParams,
    StepKind.RECOVER: RecoverParams,
    StepKind.RELABEL: RelabelParams,
    StepKind.EVALUATE: EvaluateParams,
    StepKind.CONTINUAL: ContinualParams,
    StepKind.PACKAGE: PackageParams,
    StepKind.EXPORT: ExportParams,
}
STEPS: dict[StepKind, Callable[[Context[Any]], Telling]] = {
    StepKind.PREPARE: prepare,
    StepKind.TEACH: teach,
    StepKind.OBSERVE: observe,
    StepKind.SELECT: select,
    StepKind.RECOVER: recover,
    StepKind.RELABEL: relabel,
    StepKind.EVALUATE: evaluate,
    StepKind.CONTINUAL: continual,
    StepKind.PACKAGE: package,
    StepKind.EXPORT: export,
}
