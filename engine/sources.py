"""Where real images come from, as parts of a spec. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.fields import Part, Resolution, Unique

UNPACKED = "images"  # of an upload: the folder of its class folders
UPLOADED_WEIGHTS = "weights.safetensors"  # of an upload that is a network's weights


class Digits(Part):
    """Handwritten digits that ship with scikit-learn: 1,797 greyscale images of 8x8, enlarged; a fifth is the test set."""

    source: Literal["digits"] = "digits"
    resolution: Resolution = Field(16, description="Side of the square images, in pixels.")


class Folder(Part):
    """A folder of classes on the server: `path/train/<class>/*` and `path/test` (or `val`), or `path/<class>/*`.

    Tiny-ImageNet's own layout is read as it is unpacked.
    """

    source: Literal["folder"] = "folder"
    path: str = Field(min_length=1, max_length=1024, description="Absolute path, under a root that the server allows.")
    resolution: Resolution | None = Field(
        None, description="Side of the square images, in pixels; by default that of the images, at most 224."
    )
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=10_000), Unique] | None = Field(
        None, description="Class folders to use, in the order of the labels; by default all of them, sorted."
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Share of each class kept for testing where the folder has no test set."
    )


class Upload(Part):
    """A zip of class folders that somebody sent to the server, which unpacked it; `id` is the archive's SHA-256."""

    source: Literal["upload"] = "upload"
    id: str = Field(pattern=r"^[0-9a-f]{64}$", description="What `fadrm upload` prints.")
    resolution: Resolution | None = Field(
        None, description="Side of the square images, in pixels; by default that of the images, at most 224."
    )
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=10_000), Unique] | None = Field(
        None, description="Class folders to use, in the order of the labels; by default all of them, sorted."
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Share of each class kept for testing where the archive has no test set."
    )

    def unpacked(self, uploads: Path) -> Folder:
        """The same as the folder that the archive was unpacked to."""
        fields = self.model_dump(exclude={"source", "id"})
        return Folder(path=str(uploads / self.id / UNPACKED), **fields)


class Torchvision(Part):
    """A public data set that torchvision fetches on first use (needs a network once)."""

    source: Literal["torchvision"] = "torchvision"
    name: Literal["cifar10", "cifar100", "imagenette"] = "cifar10"
    resolution: Resolution = Field(32, description="Side of the square images, in pixels; ImageNette's are 224.")


class HuggingFace(Part):
    """A data set of the Hugging Face Hub, or a folder on the server with its parquet files."""

    source: Literal["huggingface"] = "huggingface"
    name: str = Field(
        pattern=r"^(/.*|[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)$",
        max_length=1024,
        description="owner/name on the Hub, or the absolute path of a folder under a root that the server allows.",
    )
    config: str | None = Field(None, max_length=256, description="Configuration; needed where there are several.")
    train_split: str = Field("train", min_length=1, max_length=256, description="Split to train on.")
    test_split: str | None = Field(
        None, max_length=256, description="Split to test on; by default test, validation, valid or val, if labelled."
    )
    image_column: str | None = Field(None, max_length=256, description="By default the only column of images.")
    label_column: str | None = Field(None, max_length=256, description="By default the only column of class labels.")
    resolution: Resolution | None = Field(
        None, description="Side of the square images, in pixels; by default that of the first image, at most 224."
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Share of each class kept for testing where there is no labelled test split."
    )

    @property
    def folder(self) -> str | None:
        """The folder that is meant; None for a data set of the Hub."""
        return self.name if self.name.startswith("/") else None


DatasetSpec = Annotated[Digits | Folder | Upload | Torchvision | HuggingFace, Field(discriminator="source")]
