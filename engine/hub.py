"""Data sets of the Hugging Face Hub: which parquet files they have, and these on the disk. Torch-free.

What a set holds in another form, the Hub itself offers as parquet under CONVERTED. huggingface_hub is imported where it
is needed: a server that uses no such set does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import DatasetMissing, EngineError
from engine.parquet import Shard

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOOKUP_S = 5.0  # for one question to the Hub
PLANNING_S = 20.0  # for all that planning reads from it
FETCH_S = 3600.0  # for one file of the set
CONVERTED = "refs/convert/parquet"
Found = TypeVar("Found")


def within(name: str, look: Callable[[], Found], limit_s: float = PLANNING_S) -> Found:
    """What `look` finds on the Hub. Raises DatasetMissing when it fails, or takes longer than that."""
    pool = ThreadPoolExecutor(1)
    asked = pool.submit(look)
    pool.shutdown(wait=False)
    if not wait([asked], limit_s).done:
        raise _unreachable(name, f"no answer within {limit_s:g} s")
    error = asked.exception()
    if isinstance(error, EngineError):
        raise error
    if error is not None:  # of the Hub's client, of any of the kinds that its versions raise
        raise _unreachable(name, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return asked.result()


def shards_of_hub(name: str) -> list[Shard]:
    """The parquet files of a data set: its own, else those that the Hub made of it. Raises what huggingface_hub does."""
    client = _client()
    own = client.dataset_info(name, files_metadata=True, timeout=LOOKUP_S)
    for info in (own, None):
        found = info or client.dataset_info(name, revision=CONVERTED, files_metadata=True, timeout=LOOKUP_S)
        files = [file for file in found.siblings or () if file.rfilename.endswith(".parquet")]
        if files:
            return [
                Shard(
                    path=file.rfilename,
                    version=str(file.blob_id),
                    open=partial(_remote, f"datasets/{name}@{found.sha}/{file.rfilename}"),
                    revision=str(found.sha),
                )
                for file in files
            ]
    raise DatasetMissing(
        f"{name} has no parquet files on the Hugging Face Hub.",
        hint="Download it, put its images in folders of classes, and use source: folder.",
        pointer="/dataset/name",
    )


def fetched(name: str, shards: Sequence[Shard], downloads: Path) -> list[Path]:
    """The shards on the disk, fetched on first use. Raises DatasetMissing when the Hub cannot be reached."""
    from huggingface_hub import hf_hub_download

    return [
        Path(
            within(
                name,
                partial(
                    hf_hub_download,
                    name,
                    shard.path,
                    repo_type="dataset",
                    revision=shard.revision,
                    cache_dir=downloads / "huggingface",
                    etag_timeout=LOOKUP_S,
                ),
                limit_s=FETCH_S,
            )
        )
        for shard in shards
    ]


def _client() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise DatasetMissing(
            "Data sets of the Hugging Face Hub are found with huggingface_hub, which is not installed here.",
            hint="Install fadrm[huggingface] on the server and its workers, or download the set and give its folder.",
            pointer="/dataset/name",
        ) from error
    return HfApi()


def _remote(path: str) -> Any:
    """A file of the Hub, of which only what is asked for is read."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(path, block_size=2**18)


def _unreachable(name: str, reason: str) -> DatasetMissing:
    return DatasetMissing(
        f"{name} cannot be read from the Hugging Face Hub: {reason}.",
        hint="Check the name and the network, or download the set's parquet files to a folder under a root that the "
        "server allows, and give its absolute path as name.",
        pointer="/dataset/name",
    )
