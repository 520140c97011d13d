"""A downloaded set: its images for torch, for Hugging Face datasets, for the eye."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fadrm.errors import ClientError

if TYPE_CHECKING:
    import datasets

    from fadrm.torch_set import TorchSet


class Distilled:
    """The zip of a finished job. N images, class-major: those of the first class, then of the second."""

    def __init__(self, path: str | Path) -> None:
        """Raises ClientError when the file is no download of FADRM Server."""
        self.path = Path(path)
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            self.manifest: dict[str, Any] = json.loads(self._zip().read("manifest.json"))
            entries = sorted(self.manifest["images"], key=lambda entry: (entry["class"], entry["ipc"]))
            self.classes: list[str] = [entry["name"] for entry in self.manifest["classes"]]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            hint = "Give the zip that `fadrm download` fetched: fadrm-<key>-ipc<n>.zip."
            raise ClientError(f"{self.path} is no distilled set: {error}.", hint) from error
        self._files: list[str] = [entry["file"] for entry in entries]
        self.labels: list[int] = [entry["class"] for entry in entries]

    def __len__(self) -> int:
        return len(self._files)

    @property
    def mean(self) -> list[float]:
        """Of the real training images, a channel, for pixels in 0..1."""
        return list(self.manifest["normalisation"]["mean"])

    @property
    def std(self) -> list[float]:
        """Of the real training images, a channel, for pixels in 0..1."""
        return list(self.manifest["normalisation"]["std"])

    @property
    def card(self) -> str:
        """How well it does, and what to mind: Markdown."""
        return self._zip().read("card.md").decode()

    def image(self, index: int) -> Image.Image:
        """One image, RGB."""
        with Image.open(io.BytesIO(self._zip().read(self._files[index]))) as image:
            return image.convert("RGB")

    def dataset(self, transform: Callable[[Image.Image], Any] | None = None) -> TorchSet:
        """A torch Dataset of (image, label): float32 (3, H, W), normalised as the teachers saw it, and the class index.

        transform: takes the PIL image, instead of that. The soft labels are for `train.py` in the zip.
        """
        from fadrm.torch_set import TorchSet

        return TorchSet(self, transform)

    def huggingface(self) -> datasets.Dataset:
        """A Hugging Face Dataset with `image` and `label`, the classes named."""
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=self.classes)})
        images = [{"bytes": self._zip().read(file), "path": None} for file in self._files]
        return datasets.Dataset.from_dict({"image": images, "label": self.labels}, features=features)

    def _zip(self) -> zipfile.ZipFile:
        """The zip, opened once a process: loader workers that were forked must not share one file position."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None}

    def _repr_html_(self) -> str:
        from fadrm import notebook

        return notebook.distilled(self)
