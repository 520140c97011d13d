"""A downloaded set: for torch, for Hugging Face, for the eye."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from fadrm import ClientError, Distilled

CLASSES = ("cat", "dog")
IPC, SIDE = 2, 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A zip as a job leaves it: the manifest lists ipc after ipc, the pixel value of each image is 10·class + ipc."""
    path = tmp_path / "fadrm-0123456789ab-ipc2.zip"
    places = [(label, ipc) for ipc in range(IPC) for label in range(len(CLASSES))]
    names = {place: f"images/{place[0]:05d}_{CLASSES[place[0]]}/{place[1]:05d}.png" for place in places}
    manifest = {
        "title": "Pets",
        "classes": [{"index": index, "name": name} for index, name in enumerate(CLASSES)],
        "normalisation": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
        "images": [{"file": names[label, ipc], "class": label, "ipc": ipc} for label, ipc in places],
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("card.md", "# A card\n")
        for (label, ipc), name in names.items():
            png = io.BytesIO()
            Image.new("RGB", (SIDE, SIDE), (10 * label + ipc, 0, 255)).save(png, "PNG")
            archive.writestr(name, png.getvalue())
    return path


def test_images_are_class_major_and_normalised(path: Path) -> None:
    made = Distilled(path).dataset()
    assert len(made) == 4 and [label for _, label in made] == [0, 0, 1, 1] == made.targets
    image, _ = made[3]
    expected = torch.tensor([(11 / 255 - 0.5) / 0.2, -0.4 / 0.2, (1 - 0.3) / 0.1])
    torch.testing.assert_close(image, expected.view(3, 1, 1).expand(3, SIDE, SIDE))


def test_a_loader_with_worker_processes_reads_it(path: Path) -> None:
    made = Distilled(path).dataset()
    made[0]
    batches = torch.utils.data.DataLoader(made, batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert [labels.tolist() for _, labels in batches] == [[0, 0], [1, 1]]
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again[2][0], made[2][0])


def test_a_transform_takes_the_place_of_the_normalisation(path: Path) -> None:
    assert Distilled(path).dataset(lambda image: image.getpixel((0, 0)))[2] == ((10, 0, 255), 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hugging_face_gets_images_and_named_labels(path: Path) -> None:
    made = Distilled(path).huggingface()
    assert made["label"][:] == [0, 0, 1, 1] and made.features["label"].names == list(CLASSES)
    assert made[3]["image"].getpixel((0, 0)) == (11, 0, 255)


def test_a_notebook_shows_the_grid(path: Path) -> None:
    shown = Distilled(path)._repr_html_()
    assert "Pets" in shown and "4 images of 2 classes, 8 px" in shown and 'src="data:image/png;base64,' in shown


def test_what_is_no_distilled_set_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "a")
    (tmp_path / "text").write_text("no zip")
    for path in (other, tmp_path / "text", tmp_path / "nothing.zip"):
        with pytest.raises(ClientError, match="is no distilled set"):
            Distilled(path)
