"""What can go wrong inside the engine, each with a code, a sentence that names the value, and a hint."""

from __future__ import annotations

import errno
from typing import Any, ClassVar

from pydantic import BaseModel


class ErrorReport(BaseModel, frozen=True):
    """An error as data: what travels from the engine to SQL, the API and the page."""

    code: str
    message: str
    hint: str = ""
    details: dict[str, Any] = {}
    pointer: str = ""  # JSON pointer to the field of the spec that is to blame, where there is one


class EngineError(Exception):
    """A failure that trying again would only repeat: the spec or the data must change."""

    code: ClassVar[str] = "engine_error"
    hint: ClassVar[str] = ""
    pointer: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, pointer: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.report = ErrorReport(
            code=self.code,
            message=message,
            hint=self.hint if hint is None else hint,
            pointer=self.pointer if pointer is None else pointer,
            details=details,
        )


class DatasetInvalid(EngineError):
    """The images cannot be distilled as they are: an empty class, a corrupt file, too few images."""

    code = "dataset_invalid"
    pointer = "/dataset"


class DatasetMissing(EngineError):
    """The data set is not there, or cannot be fetched from here."""

    code = "dataset_missing"
    pointer = "/dataset"


class SpecInvalid(EngineError):
    """The spec asks for what its data set cannot give."""

    code = "spec_invalid"


class WeightsInvalid(EngineError):
    """A teacher's weights that cannot be had, or do not fit its network."""

    code = "weights_invalid"
    pointer = "/teachers"


class PackageInvalid(EngineError):
    """A download whose images and labels do not belong together."""

    code = "package_invalid"
    hint = "Retry the step. If it fails again, this is a mistake of the server: report it with the job's log."


class Diverged(EngineError):
    """A loss that is not finite."""

    code = "nan_loss"
    hint = "Lower the learning rate, or set precision to fp32."

    def __init__(self, stage: str, step: int) -> None:
        super().__init__(f"{stage} reached a loss that is not finite at step {step}.", stage=stage, step=step)


class OutOfMemory(EngineError):
    """The device had too little memory for this batch."""

    code = "gpu_out_of_memory"
    hint = "Choose a smaller network, a lower resolution or smaller batches, or wait until the device is free."


FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError where a disk is full, or a share of it


class DiskFull(EngineError):
    """The store's disk is full."""

    code = "disk_full"
    hint = "Free space below the data directory, then retry the job: finished steps are kept."


class Drained(Exception):
    """The process was asked to end: a checkpoint is left, and the step goes on from it later."""
