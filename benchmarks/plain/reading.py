"""A folder of image files as an array: a loop over them with torchvision's Resize and CenterCrop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from torchvision import transforms

from benchmarks.planted import photos
from benchmarks.task import Task

TOLD_EVERY = 512
SAMPLE = 997  # every so many values are compared


def read(task: Task) -> Iterator[int]:
    """Tells images as often as the engine does."""
    folder, side = photos(task), task.workload.resolution
    resize = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])
    done, total = 0, task.workload.images
    for split in ("train", "test"):
        paths = sorted((folder / split).rglob("*.jpg"))
        pixels = np.empty((len(paths), 3, side, side), np.uint8)
        for index, path in enumerate(paths):
            with Image.open(path) as image:
                pixels[index] = np.asarray(resize(image.convert("RGB"))).transpose(2, 0, 1)
            done += 1
            if (index + 1) % TOLD_EVERY == 0:
                yield done
        np.save(task.root / f"plain-{split}.npy", pixels)
        if task.checking:
            task.tell("pixels", *pixels.reshape(-1)[::SAMPLE].astype(float).tolist())
    yield total
