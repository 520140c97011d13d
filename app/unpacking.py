"""A zip of class folders, from somebody we do not know, as a folder of images. Nothing of it is believed unchecked.

Every entry is looked at before the first byte is unpacked; only images are written, under names that are allowed, entry by
entry, counting bytes. What archives try: reliability.md 4.2, CVE-2024-0450 (overlapping entries).
"""

from __future__ import annotations

import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from struct import error as StructError

from app.errors import Unprocessable
from app.settings import Settings
from engine.folders import SUFFIXES, TEST_FOLDERS
from engine.store import sync

CHUNK = 2**20
LOCAL_HEADER_BYTES = 30  # before each entry, without its name
CENTRAL_SIGNATURE = b"PK\x01\x02"
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # others may ask for any amount of memory
ENCRYPTED = 0x1
KINDS = frozenset({0, stat.S_IFREG, stat.S_IFDIR})  # of a file by Unix; 0: the archive does not say
PUNCTUATION = frozenset(" -_.,+&()'[]{}#@!~=%$^;`")
LONGEST_NAME_BYTES = 200
LONGEST_PATH = 1024  # characters
DEEPEST_PATH = 16  # folders: each is looked at and remembered
DRIVE = re.compile(r"[A-Za-z]:")
HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    StructError,
    ValueError,
)
LAYOUT = (
    "Put the images of each class in a folder of their own: <class>/<image>, or train/<class>/<image> with test/ alike."
)
MADE_AGAIN = "Make the archive again with an ordinary zip program, from folders and image files alone."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may have."""

    entries: int
    file_bytes: int
    unpacked_bytes: int
    ratio: float  # of unpacked to packed bytes

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those that the administrator set."""
        return cls(
            entries=settings.max_upload_entries,
            file_bytes=settings.max_upload_file_bytes,
            unpacked_bytes=settings.max_upload_unpacked_bytes,
            ratio=settings.max_upload_ratio,
        )


def unpack(archive: Path, folder: Path, limits: Limits) -> None:
    """Write an archive's images below `folder`, which is made, and have them on the disk. Raises Unprocessable.

    A folder around everything is left out, and so is whatever is no image.
    """
    _refuse_many(archive, limits)
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            _refuse_hostile(infos, limits)
            images = _placed([info for info in infos if _is_image(info)])
            _refuse_large([info for info, _ in images], limits)
            folder.mkdir(parents=True)
            for info, path in images:
                _write(opened, info, folder / path, limits)
    except DAMAGED as error:
        told = str(error) or type(error).__name__
        raise _refusal(f"The archive cannot be read: {_short(told)}.", "Make it again, as an ordinary zip.") from error
    for made in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(made)


def _refuse_many(archive: Path, limits: Limits) -> None:
    """Before zipfile makes an object of each entry: there are no more entries than signatures of them in the file."""
    count, rest = 0, b""
    with archive.open("rb") as file:
        while chunk := file.read(CHUNK):
            count += (rest + chunk).count(CENTRAL_SIGNATURE)
            rest = chunk[1 - len(CENTRAL_SIGNATURE) :]
    if count > limits.entries:
        raise _refusal(
            f"The archive has {count:,} entries, and the limit is {limits.entries:,}.",
            "Leave out what is no image, or have an administrator raise FADRM_MAX_UPLOAD_ENTRIES.",
        )


def _refuse_hostile(infos: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    """Raises Unprocessable for what no ordinary archive has, also where it would not be written."""
    for info in infos:
        _refuse_name(info.orig_filename)
        shown = _short(info.filename)
        if info.flag_bits & ENCRYPTED:
            raise _refusal(f"{shown} is encrypted.", "Make the archive without a password.")
        if stat.S_IFMT(info.external_attr >> 16) not in KINDS:
            raise _refusal(f"{shown} is a link or a device, not a file.", MADE_AGAIN)
        if info.compress_type not in METHODS:
            raise _refusal(f"{shown} is compressed in a way that is not read here.", "Use stored or deflate.")
        if info.file_size > CHUNK and info.file_size > limits.ratio * max(info.compress_size, 1):
            raise _refusal(
                f"{shown} is packed to less than 1/{limits.ratio:g} of its size.", "No photo is: look at the file."
            )
    _refuse_overlaps(infos)
    _refuse_collisions(infos)


def _refuse_name(name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if len(name) > LONGEST_PATH:
        raise _refusal(f"{_short(name)} has more than {LONGEST_PATH} characters.", "Use shorter names.")
    if len(parts) > DEEPEST_PATH:
        raise _refusal(
            f"{_short(name)} lies in more than {DEEPEST_PATH} folders.", "Put images in class folders: class/image."
        )
    if not name or name.startswith("/") or DRIVE.match(name):
        raise _refusal(f"{_short(name)} is an absolute path.", MADE_AGAIN)
    if any(part in {"", ".", ".."} for part in parts):
        raise _refusal(f"{_short(name)} has a part that is empty, `.` or `..`.", MADE_AGAIN)
    if "\\" in name or any(unicodedata.category(character).startswith("C") for character in name):
        raise _refusal(f"{_short(name)} holds a backslash or a character that is not printed.", MADE_AGAIN)


def _refuse_overlaps(infos: Iterable[zipfile.ZipInfo]) -> None:
    """Entries that share bytes unpack to any size: a bomb that needs no nesting."""
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise _refusal(f"{_short(info.filename)} overlaps another entry of the archive.", MADE_AGAIN)
        end = info.header_offset + LOCAL_HEADER_BYTES + len(info.orig_filename) + info.compress_size


def _refuse_collisions(infos: Iterable[zipfile.ZipInfo]) -> None:
    """Raises Unprocessable where two names are one on some disk: Cat and cat, a file and a folder, é written in two ways."""
    known: dict[str, tuple[str, bool]] = {}
    files: set[str] = set()
    for info in infos:
        path = PurePosixPath(info.filename)
        if not info.is_dir() and info.filename in files:
            raise _refusal(f"{_short(info.filename)} is in the archive twice.", MADE_AGAIN)
        files.add(info.filename)
        for part in (path, *path.parents[:-1]):
            this = str(part), part != path or info.is_dir()
            other = known.setdefault(unicodedata.normalize("NFC", str(part)).casefold(), this)
            if other != this:
                raise _refusal(
                    f"{_short(this[0])} and {_short(other[0])} are one name on some disks.", "Rename one of them."
                )


def _is_image(info: zipfile.ZipInfo) -> bool:
    """Whether it is to be written: not what a Mac or a desktop adds."""
    path = PurePosixPath(info.filename)
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not info.is_dir() and not is_hidden and path.suffix.lower() in SUFFIXES


def _placed(images: Sequence[zipfile.ZipInfo]) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Each image with its place: <class>/<image>, or train/, test/ or val/ before that. Raises Unprocessable."""
    if not images:
        raise _refusal(f"The archive has no image ({', '.join(sorted(SUFFIXES))}).", LAYOUT)
    paths = [PurePosixPath(info.filename) for info in images]
    while len({path.parts[0] for path in paths}) == 1 and paths[0].parts[0] != "train":
        if min(len(path.parts) for path in paths) <= 2:
            break
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    is_split = any(path.parts[0] == "train" and len(path.parts) > 2 for path in paths)
    for path in paths:
        is_placed = path.parts[0] in {"train", *TEST_FOLDERS} if is_split else True
        if not is_placed or len(path.parts) != (3 if is_split else 2):
            raise _refusal(f"{_short(str(path))} does not lie in the folder of a class.", LAYOUT)
        for part in path.parts:
            _refuse_odd(part, path)
    return list(zip(images, paths, strict=True))


def _refuse_odd(part: str, path: PurePosixPath) -> None:
    """Names become folders, labels and text on pages: letters, digits and some punctuation of any language."""
    is_allowed = all(unicodedata.category(one)[0] in "LMN" or one in PUNCTUATION for one in part)
    if not is_allowed or part.endswith((" ", ".")) or len(part.encode()) > LONGEST_NAME_BYTES:
        raise _refusal(
            f"{_short(part)} in {_short(str(path))} is no name that is taken here.",
            f"Use letters, digits, blanks and {''.join(sorted(PUNCTUATION - {' '}))}, at most {LONGEST_NAME_BYTES} bytes, "
            "and no blank or dot at the end.",
        )


def _refuse_large(images: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    """By what the archive says; that it says so truly is seen while it is unpacked."""
    largest = max(images, key=lambda info: info.file_size)
    if largest.file_size > limits.file_bytes:
        raise _refusal(
            f"{_short(largest.filename)} has {largest.file_size:,} bytes, and the limit is {limits.file_bytes:,}.",
            "Make the image smaller: sides beyond 512 px are never used.",
        )
    total = sum(info.file_size for info in images)
    if total > limits.unpacked_bytes:
        raise _refusal(
            f"The images have {total:,} bytes unpacked, and the limit is {limits.unpacked_bytes:,}.",
            "Make the images smaller, or have an administrator raise FADRM_MAX_UPLOAD_UNPACKED_BYTES.",
        )
    packed = sum(info.compress_size for info in images)
    if total > CHUNK and total > limits.ratio * max(packed, 1):
        raise _refusal(
            f"The images are packed to less than 1/{limits.ratio:g} of their size.", "No photos are: look at the files."
        )


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, limits: Limits) -> None:
    """One image, while its bytes are counted. Raises Unprocessable, and what zipfile raises for damaged ones."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened.open(info) as packed, target.open("xb") as file:
        while chunk := packed.read(CHUNK):
            if size == 0 and not _looks_like_an_image(chunk):
                raise _refusal(
                    f"{_short(info.filename)} is called an image, but it is no PNG, JPEG, WebP or BMP.",
                    "Replace or remove the file.",
                )
            size += len(chunk)
            if size > min(info.file_size, limits.file_bytes):
                raise _refusal(f"{_short(info.filename)} is larger than the archive says.", MADE_AGAIN)
            file.write(chunk)
    if size == 0:
        raise _refusal(f"{_short(info.filename)} is empty.", "Replace or remove the file.")


def _looks_like_an_image(start: bytes) -> bool:
    return start.startswith(HEADS) or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")


def _refusal(message: str, hint: str) -> Unprocessable:
    return Unprocessable(message, hint=hint)


def _short(name: str) -> str:
    """A name as it can be shown: quoted where it is odd, and cut."""
    shown = name if name.isprintable() and name.strip() == name and name else ascii(name)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."
