"""A zip of class folders, from somebody we do not know, as a folder of images. Nothing of it is believed unchecked.

Every entry is looked at before the first byte is unpacked; only images are written, under names that are allowed, entry by
entry, counting bytes; each is decoded whole, and kept without what is around its picture (`app.cleaning`). What archives try:
docs/reliability.md, CVE-2024-0450 (overlapping entries). `main` is the program that `app.confined` runs it as.
"""

from __future__ import annotations

import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from PIL import Image, UnidentifiedImageError

from app import cage
from app.cage import DiskFull, Refusal, short
from app.cleaning import clean
from engine.upright import UNREADABLE

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
NAMED = 20  # unreadable images that are told of
MAY_SKIP = 100  # one unreadable image in so many may be left out, where that is asked for
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    struct.error,
    ValueError,
)
UNDECODABLE = (*UNREADABLE, Warning)
LAYOUT = (
    "Put the images of each class in a folder of their own: <class>/<image>, or train/<class>/<image> with test/ alike."
)
LEFT_OUT = "`fadrm upload --skip-bad`, the box on the page Data sets, or skip_bad=true in the API"
MADE_AGAIN = "Make the archive again with an ordinary zip program, from folders and image files alone."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may have."""

    entries: int
    file_bytes: int
    unpacked_bytes: int
    ratio: float  # of unpacked to packed bytes
    pixels: int  # of one image


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do. suffixes, test_folders: as the engine has them."""

    archive: str
    folder: str
    skip_bad: bool
    suffixes: frozenset[str]
    test_folders: frozenset[str]
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class BadImage:
    """An image that cannot be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What was written."""

    images: int
    size_bytes: int
    skipped: int = 0  # images that cannot be read, which were left out
    files: tuple[BadImage, ...] = ()  # the first of these


def main() -> None:
    """The program: an order, without its limits as a value, to what was unpacked."""
    cage.run(_carry_out)


def _carry_out(given: dict[str, Any]) -> dict[str, Any]:
    limits = Limits(**given.pop("limits"))
    sets: dict[str, Any] = {name: frozenset(given.pop(name)) for name in ("suffixes", "test_folders")}
    Image.MAX_IMAGE_PIXELS = limits.pixels
    return asdict(unpack(Order(**given, **sets, limits=limits)))


def unpack(order: Order) -> Unpacked:
    """Write an archive's images below a folder, which is made. Raises Refusal or DiskFull.

    A folder around everything is left out, and so is whatever is no image.
    """
    limits, folder = order.limits, Path(order.folder)
    _refuse_many(Path(order.archive), limits)
    try:
        with zipfile.ZipFile(order.archive) as opened:
            infos = opened.infolist()
            _refuse_hostile(infos, limits)
            images = _placed([info for info in infos if _is_image(info, order)] or _without(infos, order), order)
            size_bytes = _refuse_large([info for info, _ in images], limits)
            folder.mkdir(parents=True)
            if shutil.disk_usage(folder).free < size_bytes:
                raise DiskFull
            bad = list(_written(opened, images, folder, limits))
    except DAMAGED as error:
        told = str(error) or type(error).__name__
        raise Refusal(f"The archive cannot be read: {short(told)}.", "Make it again, as an ordinary zip.") from error
    if bad:
        _refuse_bad(bad, len(images), may_skip=order.skip_bad)
    left = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Unpacked(images=len(images) - len(bad), size_bytes=left, skipped=len(bad), files=tuple(bad[:NAMED]))


def _refuse_bad(bad: Sequence[BadImage], images: int, *, may_skip: bool) -> None:
    """Raises Refusal for images that cannot be read, unless they are few and may be left out."""
    most = -(-images // MAY_SKIP)
    if may_skip and len(bad) <= most:
        return
    detail = f"{len(bad):,} of {images:,} images cannot be read."
    if len(bad) == 1:
        detail = f"{short(bad[0].name)} cannot be read: {bad[0].reason}."
    if len(bad) <= most:
        hint = f"Replace or remove them, or have them left out: {LEFT_OUT}."
    else:
        hint = f"Replace or remove them. At most one in {MAY_SKIP} may be left out ({LEFT_OUT})."
    raise Refusal(detail, hint, files=[asdict(file) for file in bad[:NAMED]])


def _refuse_many(archive: Path, limits: Limits) -> None:
    """Before zipfile makes an object of each entry: there are no more entries than signatures of them in the file."""
    count, rest = 0, b""
    with archive.open("rb") as file:
        while chunk := file.read(CHUNK):
            count += (rest + chunk).count(CENTRAL_SIGNATURE)
            rest = chunk[1 - len(CENTRAL_SIGNATURE) :]
    if count > limits.entries:
        raise Refusal(
            f"The archive has {count:,} entries, and the limit is {limits.entries:,}.",
            "Leave out what is no image, or have an administrator raise FADRM_MAX_UPLOAD_ENTRIES.",
        )


def _refuse_hostile(infos: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    """Raises Refusal for what no ordinary archive has, also where it would not be written."""
    for info in infos:
        _refuse_name(info.orig_filename)
        shown = short(info.filename)
        if info.flag_bits & ENCRYPTED:
            raise Refusal(f"{shown} is encrypted.", "Make the archive without a password.")
        if stat.S_IFMT(info.external_attr >> 16) not in KINDS:
            raise Refusal(f"{shown} is a link or a device, not a file.", MADE_AGAIN)
        if info.compress_type not in METHODS:
            raise Refusal(f"{shown} is compressed in a way that is not read here.", "Use stored or deflate.")
        if info.file_size > CHUNK and info.file_size > limits.ratio * max(info.compress_size, 1):
            raise Refusal(
                f"{shown} is packed to less than 1/{limits.ratio:g} of its size.", "No photo is: look at the file."
            )
    _refuse_overlaps(infos)
    _refuse_collisions(infos)


def _refuse_name(name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if len(name) > LONGEST_PATH:
        raise Refusal(f"{short(name)} has more than {LONGEST_PATH} characters.", "Use shorter names.")
    if len(parts) > DEEPEST_PATH:
        raise Refusal(
            f"{short(name)} lies in more than {DEEPEST_PATH} folders.", "Put images in class folders: class/image."
        )
    if not name or name.startswith("/") or DRIVE.match(name):
        raise Refusal(f"{short(name)} is an absolute path.", MADE_AGAIN)
    if any(part in {"", ".", ".."} for part in parts):
        raise Refusal(f"{short(name)} has a part that is empty, `.` or `..`.", MADE_AGAIN)
    if "\\" in name or any(unicodedata.category(character).startswith("C") for character in name):
        raise Refusal(f"{short(name)} holds a backslash or a character that is not printed.", MADE_AGAIN)


def _refuse_overlaps(infos: Iterable[zipfile.ZipInfo]) -> None:
    """Entries that share bytes unpack to any size: a bomb that needs no nesting."""
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise Refusal(f"{short(info.filename)} overlaps another entry of the archive.", MADE_AGAIN)
        end = info.header_offset + LOCAL_HEADER_BYTES + len(info.orig_filename) + info.compress_size


def _refuse_collisions(infos: Iterable[zipfile.ZipInfo]) -> None:
    """Raises Refusal where two names are one on some disk: Cat and cat, a file and a folder, é written in two ways."""
    known: dict[str, tuple[str, bool]] = {}
    files: set[str] = set()
    for info in infos:
        path = PurePosixPath(info.filename)
        if not info.is_dir() and info.filename in files:
            raise Refusal(f"{short(info.filename)} is in the archive twice.", MADE_AGAIN)
        files.add(info.filename)
        for part in (path, *path.parents[:-1]):
            this = str(part), part != path or info.is_dir()
            other = known.setdefault(unicodedata.normalize("NFC", str(part)).casefold(), this)
            if other != this:
                raise Refusal(
                    f"{short(this[0])} and {short(other[0])} are one name on some disks.", "Rename one of them."
                )


def _is_image(info: zipfile.ZipInfo, order: Order) -> bool:
    """Whether it is to be written: not what a Mac or a desktop adds."""
    path = PurePosixPath(info.filename)
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not info.is_dir() and not is_hidden and path.suffix.lower() in order.suffixes


def _without(infos: Sequence[zipfile.ZipInfo], order: Order) -> NoReturn:
    """Raises Refusal for an archive without images, which names what it has instead."""
    endings = Counter(PurePosixPath(info.filename).suffix.lower() for info in infos if not info.is_dir())
    ending, count = endings.most_common(1)[0] if endings else ("", 0)
    has = f": it has {count:,} file{'s' if count != 1 else ''} ending in {short(ending)}" if ending else ""
    raise Refusal(f"The archive has no image ({', '.join(sorted(order.suffixes))}){has}.", LAYOUT)


def _placed(images: Sequence[zipfile.ZipInfo], order: Order) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Each image with its place: <class>/<image>, or train/, test/ or val/ before that. Raises Refusal."""
    paths = [PurePosixPath(info.filename) for info in images]
    while len({path.parts[0] for path in paths}) == 1 and paths[0].parts[0] != "train":
        if min(len(path.parts) for path in paths) <= 2:
            break
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    is_split = any(path.parts[0] == "train" and len(path.parts) > 2 for path in paths)
    for path in paths:
        is_placed = path.parts[0] in {"train", *order.test_folders} if is_split else True
        if not is_placed or len(path.parts) != (3 if is_split else 2):
            raise Refusal(f"{short(str(path))} does not lie in the folder of a class.", LAYOUT)
        for part in path.parts:
            _refuse_odd(part, path)
    return list(zip(images, paths, strict=True))


def _refuse_odd(part: str, path: PurePosixPath) -> None:
    """Names become folders, labels and text on pages: letters, digits and some punctuation of any language."""
    is_allowed = all(unicodedata.category(one)[0] in "LMN" or one in PUNCTUATION for one in part)
    if not is_allowed or part.endswith((" ", ".")) or len(part.encode()) > LONGEST_NAME_BYTES:
        raise Refusal(
            f"{short(part)} in {short(str(path))} is no name that is taken here.",
            f"Use letters, digits, blanks and {''.join(sorted(PUNCTUATION - {' '}))}, at most {LONGEST_NAME_BYTES} bytes, "
            "and no blank or dot at the end.",
        )


def _refuse_large(images: Sequence[zipfile.ZipInfo], limits: Limits) -> int:
    """How many bytes they have, by what the archive says; that it says so truly is seen while it is unpacked."""
    largest = max(images, key=lambda info: info.file_size)
    if largest.file_size > limits.file_bytes:
        raise Refusal(
            f"{short(largest.filename)} has {largest.file_size:,} bytes, and the limit is {limits.file_bytes:,}.",
            "Make the image smaller: sides beyond 512 px are never used.",
        )
    total = sum(info.file_size for info in images)
    if total > limits.unpacked_bytes:
        raise Refusal(
            f"The images have {total:,} bytes unpacked, and the limit is {limits.unpacked_bytes:,}.",
            "Make the images smaller, or have an administrator raise FADRM_MAX_UPLOAD_UNPACKED_BYTES.",
        )
    packed = sum(info.compress_size for info in images)
    if total > CHUNK and total > limits.ratio * max(packed, 1):
        raise Refusal(
            f"The images are packed to less than 1/{limits.ratio:g} of their size.", "No photos are: look at the files."
        )
    return total


def _written(
    opened: zipfile.ZipFile, images: Sequence[tuple[zipfile.ZipInfo, PurePosixPath]], folder: Path, limits: Limits
) -> Iterable[BadImage]:
    """Write what each image is without all that is around it; those that cannot be read are told, and not written."""
    left = limits.unpacked_bytes
    for info, path in images:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        found = _cleaned(_read(opened, info, limits), limits)
        if isinstance(found, str):
            yield BadImage(name=str(path), reason=found)
            continue
        left -= len(found)
        if left < 0:
            raise Refusal(
                f"The images have more than {limits.unpacked_bytes:,} bytes, written anew without loss.",
                "Send JPEG files, which stay as they are, or have an administrator raise "
                "FADRM_MAX_UPLOAD_UNPACKED_BYTES.",
            )
        with target.open("xb") as file:
            file.write(found)


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo, limits: Limits) -> bytes:
    """One image's bytes, counted. Raises Refusal, and what zipfile raises for damaged ones."""
    most, found = min(info.file_size, limits.file_bytes), bytearray()
    with opened.open(info) as packed:
        while chunk := packed.read(CHUNK):
            found += chunk
            if len(found) > most:
                raise Refusal(f"{short(info.filename)} is larger than the archive says.", MADE_AGAIN)
    return bytes(found)


def _cleaned(data: bytes, limits: Limits) -> bytes | str:
    """An image as it is kept, or why it cannot be read."""
    try:
        found = clean(data) if data else b""
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"it has more than {limits.pixels:,} pixels"
    except UnidentifiedImageError:
        return "it is called an image, and is no PNG, JPEG, WebP or BMP"
    except MemoryError:
        return "decoding it takes too much memory"
    except UNDECODABLE as error:
        return short(str(error) or type(error).__name__).rstrip(".")
    if len(found) > limits.file_bytes:
        return f"it has more than {limits.file_bytes:,} bytes, written anew without loss"
    return found or "it is empty"
