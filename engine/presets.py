"""Jobs to start from, as rows of data. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from engine.spec import Digits, Evaluation, Fadrm, JobSpec, Labels, Patches, Teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A job that is known to work, and what it is for."""

    name: str
    title: str
    note: str  # for whom, on what, how long
    spec: JobSpec


DEMO = JobSpec(
    dataset=Digits(resolution=16),
    ipc=10,
    method=Fadrm(budgets=(100, 100, 100, 100)),
    teachers=(Teacher(network="convnet3_w32", epochs=12, batch_size=64, optimizer="adamw", lr=0.01),),
    patches=Patches(difficulty="easy"),
    labels=Labels(epochs=100, batch_size=20),
    evaluation=Evaluation(students=("convnet3_w32",), runs=3, labels=("soft",), lr=0.01, every=20),
    flip=False,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="demo",
            title="Demo: handwritten digits",
            note="Everything from teacher to score card in about a minute on two CPU cores; nothing is fetched.",
            spec=DEMO,
        ),
    )
}
