"""Each form, read back by its own reader with the lines that docs/downloads.md gives, is the job's images and labels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as tf

from engine import arrays, png
from engine.export import FORMS
from engine.labels import PLAN_ARRAYS, LabelPlan, render
from engine.plan import StepKind
from tests.engine.export.exported import EXPORTS, export_of, file_of
from tests.engine.jobs import CPU, Job, attempt, carried_out, contents

DOCS = Path(__file__).parents[3] / "docs" / "downloads.md"
GIVEN = "fadrm-0123456789ab-ipc10-"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# What must hold after the lines of the documentation have run. `truth`: (20, 3, 8, 8) uint8, class-major.
CLAIMS = {
    "uint8": """
assert torch.equal(images, truth) and names == [str(digit) for digit in range(10)]
assert labels.tolist() == [label for label in range(10) for _ in range(2)]
""",
    "normalised": """
mean, std = (torch.tensor(saved[name])[:, None, None] for name in ("mean", "std"))
assert images.dtype == torch.float32 and torch.equal((images * std + mean).mul(255).round().byte(), truth)
assert labels.tolist() == [label for label in range(10) for _ in range(2)] and saved["soft_labels"][0] == "M"
""",
    "parquet": """
import numpy
assert type(data.features["image"]).__name__ == "Image" and type(data.features["label"]).__name__ == "ClassLabel"
assert data["label"] == [label for label in range(10) for _ in range(2)] and name == "0"
pixels = torch.stack([torch.from_numpy(numpy.array(image)).permute(2, 0, 1) for image in data["image"]])
assert torch.equal(pixels, truth)
""",
    "webdataset": """
samples = list(data.decode("torchrgb").to_tuple("png", "cls", "json"))
assert torch.equal(torch.stack([sample[0] for sample in samples]).mul(255).round().byte(), truth)
assert [(sample[1], sample[2]["ipc"]) for sample in samples] == [(label, ipc) for label in range(10) for ipc in range(2)]
assert (label, samples[-1][2]["class"]) == (0, "9") and torch.equal(image, samples[0][0])
""",
    "fkd": """
assert coords.shape == (7, 4) and flip.dtype == torch.bool and logits.shape == (7, 10) and logits.dtype == torch.float16
assert sorted(mix_index.tolist()) == list(range(7)) and 0 <= mix_lam <= 1 and len(mix_bbox) == 4
""",
}


@pytest.fixture(scope="module")
def exported(job: Job) -> Job:
    """The small job run again with exports: all the rest is in the store."""
    again = carried_out(EXPORTS, job.store.root)
    assert {step.kind for step, _ in again.events} <= {StepKind.EXPORT, StepKind.RELABEL, StepKind.PACKAGE}
    return again


@pytest.fixture(scope="module")
def truth(job: Job) -> Tensor:
    """(20, 3, 8, 8) uint8, class-major."""
    return arrays.read(job.folder(StepKind.RECOVER) / "images.npy").transpose(0, 1).flatten(0, 1).contiguous()


@pytest.mark.parametrize("form", FORMS)
def test_the_lines_of_the_documentation_read_it(form: str, exported: Job, truth: Tensor, tmp_path: Path) -> None:
    (lines,) = re.findall(rf"^## {form}\n.*?```python\n(.*?)```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    file = file_of(exported, form)
    assert lines.count(GIVEN) == 1 and file.name.endswith(lines.partition(GIVEN)[2].partition('"')[0])
    (tmp_path / file.name).symlink_to(file)
    torch.save(truth, tmp_path / "truth.pt")
    program = re.sub(r"fadrm-0123[^\"]*", file.name, lines) + 'import torch\ntruth = torch.load("truth.pt")\n'
    done = subprocess.run(
        [sys.executable, "-c", program + CLAIMS[form]],
        cwd=tmp_path,
        env=os.environ | OFFLINE | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_a_nested_ipc_has_the_first_images_of_each_class(form: str, exported: Job) -> None:
    step = export_of(exported, form, ipc=1)
    assert exported.store.manifest(step.key).result["images"] == 10
    assert "-ipc1-" in file_of(exported, form, ipc=1).name


@pytest.mark.parametrize("form", FORMS)
def test_written_twice_it_is_the_same_bytes_and_one_file(form: str, exported: Job) -> None:
    step = export_of(exported, form)
    again = contents(attempt(step, exported.store, 1))
    assert len(again) == 1 and again == contents(exported.store.step(step.key))
    exported.store.forget_work(step.key)


def test_fkd_readers_see_what_the_teachers_saw(exported: Job, job: Job, tmp_path: Path) -> None:
    """Crop by shares of the side, flip, CutMix: each pixel as the job's own students see it, within rounding."""
    with zipfile.ZipFile(file_of(exported, "fkd")) as archive:
        archive.extractall(tmp_path)
    folder = sorted((tmp_path / "images").glob("*/*.png"))  # as ImageFolder sorts
    epoch, batch = 3, 1
    order = torch.load(tmp_path / "order.pt", weights_only=True)[epoch].tolist()[7:14]
    coords, flips, partners, own, box, logits = torch.load(
        tmp_path / f"labels/epoch_{epoch}/batch_{batch}.tar", weights_only=True
    )
    seen = []
    for index, (top, left, height, width), flip in zip(order, (coords * 8).round().int().tolist(), flips, strict=True):
        image = tf.resized_crop(png.read(folder[index]), top, left, height, width, [8, 8], antialias=True)
        seen.append(tf.hflip(image) if flip else image)
    mixed = torch.stack(seen)
    rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
    mixed[:, :, rows, columns] = mixed[partners][:, :, rows, columns]
    area = (box[2] - box[0]) * (box[3] - box[1])
    assert own == pytest.approx(1 - area / 64)

    stored = {
        name: arrays.read(job.folder(StepKind.RELABEL) / f"{name}.npy")[epoch] for name in (*PLAN_ARRAYS, "logits")
    }
    images = arrays.read(job.folder(StepKind.RECOVER) / "images.npy").flatten(0, 1)
    plain = ((0.0,) * 3, (1.0,) * 3)
    truth = render(images, LabelPlan.of(stored, batch_size=7), range(batch, batch + 1), statistics=plain, device=CPU)
    assert (mixed.float() - truth * 255).abs().max() <= 1.5
    assert torch.equal(logits, stored["logits"][7:14])
