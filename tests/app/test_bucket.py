"""A store in a bucket: published once, checked when it is read, patient while the bucket is away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.bucket import Bucket, BucketAway
from app.storage.bucket_store import IN_USE_S, BucketStore
from engine.store import MANIFEST, Store, write_manifest
from tests.bucket import S3Server, environment, s3_server

KEY = "0" * 64


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> Bucket:
    return server.make(request.node.name)


@pytest.fixture
def here(bucket: Bucket, tmp_path: Path) -> BucketStore:
    return BucketStore(tmp_path / "here", bucket, patience_s=0)


@pytest.fixture
def there(bucket: Bucket, tmp_path: Path) -> BucketStore:
    """The same bucket, seen from another machine."""
    return BucketStore(tmp_path / "there", bucket, patience_s=0)


def sealed(store: Store, words: str, *, name: str = "0", seconds: float = 1.0) -> Path:
    folder = store.attempt(KEY, name)
    (folder / "deep").mkdir()
    (folder / "deep" / "words.txt").write_text(words)
    write_manifest(
        folder, key=KEY, kind="select", params={}, needs={}, result={"n": 1}, environment={}, seconds=seconds
    )
    return folder


def words_of(store: Store) -> str:
    return (store.step(KEY) / "deep" / "words.txt").read_text()


def test_what_one_machine_publishes_another_has(here: BucketStore, there: BucketStore) -> None:
    assert not there.is_whole(KEY)
    manifest = here.publish(KEY, sealed(here, "hello"))
    assert there.is_whole(KEY) and not there.is_at_hand(KEY) and there.manifest(KEY) == manifest
    assert there.damaged(KEY) == [] and there.is_at_hand(KEY) and words_of(there) == "hello"
    assert Store(there.root).manifest(KEY) == manifest  # as an engine sees it
    assert set(there.whole_keys()) == {KEY}


def test_one_file_is_fetched_without_the_others(here: BucketStore, there: BucketStore) -> None:
    here.publish(KEY, sealed(here, "hello"))
    assert there.damaged(KEY, only="deep/words.txt") == [] and words_of(there) == "hello"
    assert not there.is_at_hand(KEY)


def test_a_step_is_published_once_whoever_else_tries(here: BucketStore, there: BucketStore) -> None:
    first, second = sealed(here, "first"), sealed(there, "second", seconds=2.0)
    assert here.publish(KEY, first) == there.publish(KEY, second)
    assert here.damaged(KEY) == there.damaged(KEY) == []
    assert words_of(here) == words_of(there) == "first"


def test_files_of_two_that_publish_at_once_leave_each_other_alone(
    here: BucketStore, there: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sealed(here, "first"), sealed(there, "second")
    monkeypatch.setattr(there.bucket, "exists", lambda _: False)  # it looked before the other was done
    assert here.publish(KEY, first) == there.publish(KEY, second)
    assert there.damaged(KEY) == [] and words_of(there) == "first"


def test_nothing_is_whole_before_its_last_byte_is_there(
    here: BucketStore, there: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise BucketAway("gone")

    folder = sealed(here, "hello")
    monkeypatch.setattr(here.bucket, "upload", breaks)
    with pytest.raises(BucketAway):
        here.publish(KEY, folder)
    assert not there.is_whole(KEY) and not here.is_at_hand(KEY)
    monkeypatch.undo()
    here.publish(KEY, folder)
    assert there.is_whole(KEY)


@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_an_object_that_is_damaged_is_named_and_never_in_place(
    here: BucketStore, there: BucketStore, bucket: Bucket, damage: str
) -> None:
    entry = here.publish(KEY, sealed(here, "hello")).files["deep/words.txt"]
    name = f"steps/{KEY}/{entry.sha256}"
    if damage == "gone":
        bucket.delete(name)
    else:
        bucket.write(name, b"hellO")
    assert there.damaged(KEY) == ["deep/words.txt"] and not there.is_at_hand(KEY)
    assert not any(path.is_file() for path in there.step(KEY).rglob("*"))


def test_a_copy_that_rots_here_is_fetched_again(here: BucketStore, there: BucketStore) -> None:
    here.publish(KEY, sealed(here, "hello"))
    assert there.damaged(KEY) == []
    (there.step(KEY) / "deep" / "words.txt").write_text("hellO")
    assert there.damaged(KEY) == [] and words_of(there) == "hello"


def test_what_was_removed_and_made_again_elsewhere_takes_the_old_copys_place(
    here: BucketStore, there: BucketStore
) -> None:
    here.publish(KEY, sealed(here, "old"))
    assert there.damaged(KEY) == []
    here.remove(KEY)
    assert not here.is_whole(KEY) and not here.is_at_hand(KEY)
    here.publish(KEY, sealed(here, "new"))
    assert there.damaged(KEY) == [] and words_of(there) == "new"


def test_blobs_uploads_and_checkpoints_travel(here: BucketStore, there: BucketStore, tmp_path: Path) -> None:
    digest = here.put_blob(b"a picture")
    assert there.blob(digest).read_bytes() == b"a picture" and not there.blob("1" * 64).exists()
    made = tmp_path / "made"
    (made / "images" / "cat").mkdir(parents=True)
    (made / "images" / "cat" / "1.png").write_bytes(b"cat")
    here.keep_upload("u1", made)
    assert (there.upload("u1") / "images" / "cat" / "1.png").read_bytes() == b"cat"
    (here.checkpoints(KEY) / "000001-1.json").write_text("{}")
    here.keep_work(KEY)
    there.bring_work(KEY)
    assert (there.checkpoints(KEY) / "000001-1.json").read_text() == "{}"
    here.remove_blob(digest)
    here.remove_upload("u1", here.upload("u1"))
    here.forget_work(KEY)
    fresh = BucketStore(tmp_path / "fresh", here.bucket)
    assert not fresh.blob(digest).exists() and not fresh.upload("u1").exists()
    fresh.bring_work(KEY)
    assert not any(fresh.checkpoints(KEY).iterdir()) and list(here.bucket.names("")) == []


def test_copies_that_nobody_used_for_long_are_let_go_of(here: BucketStore, bucket: Bucket, tmp_path: Path) -> None:
    here.publish(KEY, sealed(here, "hello"))
    small = BucketStore(tmp_path / "small", bucket, most_bytes=1)
    assert small.damaged(KEY) == []
    small.trim()
    assert small.is_at_hand(KEY)  # used just now
    small = BucketStore(tmp_path / "small", bucket, most_bytes=1)
    long_ago = (small.step(KEY) / MANIFEST).stat().st_mtime - 2 * IN_USE_S
    os.utime(small.step(KEY), (long_ago, long_ago))
    small.trim()
    assert not small.is_at_hand(KEY) and small.is_whole(KEY)


def test_a_bucket_that_is_away_is_waited_for_while_the_lease_is_kept(
    here: BucketStore, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, upload = BucketStore(tmp_path / "patient", bucket, patience_s=30), bucket.upload
    ticks: list[int] = []

    def away_twice(*given: object) -> None:
        if len(ticks) < 2:
            raise BucketAway("gone")
        upload(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket, "upload", away_twice)
    patient.publish(KEY, sealed(patient, "hello"), lambda: ticks.append(1))
    assert len(ticks) >= 2 and here.is_whole(KEY)


def test_a_lease_that_is_lost_ends_the_upload_and_nothing_is_whole(here: BucketStore, there: BucketStore) -> None:
    class Lost(Exception):
        pass

    def lost() -> None:
        raise Lost

    with pytest.raises(Lost):
        here.publish(KEY, sealed(here, "hello" * 2_000_000), lost)
    assert not there.is_whole(KEY)


@pytest.mark.parametrize(
    ("url", "words"),
    [("s3://no-such-bucket", "has no such bucket"), ("s3://fadrm-tests", "cannot be used")],
)
def test_a_bucket_that_cannot_be_used_says_why(server: S3Server, tmp_path: Path, url: str, words: str) -> None:
    endpoint = server.url if "no-such" in url else "http://127.0.0.1:9"
    store = BucketStore(tmp_path, Bucket(url, endpoint=endpoint))
    with pytest.raises(BucketAway, match=words):
        store.check()
    away = store.away()
    assert away is not None and words in away and away == store.away()


def test_without_credentials_the_sentence_says_so(server: S3Server) -> None:
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    with environment(nothing), pytest.raises(BucketAway, match="credentials"):
        Bucket("s3://fadrm-tests", endpoint=server.url).check()


@pytest.mark.parametrize("url", ["bucket", "file:///x", "s3://"])
def test_what_is_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names no bucket"):
        Bucket(url)
