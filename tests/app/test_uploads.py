"""Uploaded archives: from the request to a prepared data set, and what is refused on the way, with nothing left behind."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import sys
import time
import warnings
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import ExifTags, Image

from app import confined, jobs, sent
from app.errors import Conflict, NotFound, Unprocessable
from app.main import create_app
from app.models import Upload
from app.uploads import KIND, keep
from engine.data import real_data
from engine.events import Failed
from engine.plan import Step as PlanStep
from engine.plan import StepKind
from engine.run import perform
from engine.sources import Upload as Source
from engine.store import Store
from fadrm import Client
from tests.app.alone import alone
from tests.app.archives import FLAT, SPLIT, archive, entry, flat_png, overlapping, patched, png, with_flag
from tests.app.bombs import generated
from tests.app.test_client import InProcess
from tests.app.world import SPEC, Person, World, chain, files_of, spec_body
from tests.engine.pictures import COLOURS, photo

ZIP = {"Content-Type": "application/zip"}
URL = "/api/v1/datasets"
LIMITS = {
    "max_upload_bytes": 200_000,
    "max_upload_entries": 40,
    "max_upload_file_bytes": 1_000_000,
    "max_upload_unpacked_bytes": 2_000_000,
}


@pytest.fixture
def strict(world: World, owner: Person) -> Iterator[TestClient]:
    """A client of the owner; the server takes only small archives."""
    settings = world.services.settings.model_copy(update=LIMITS)
    services = type(world.services)(
        settings=settings, database=world.services.database, store=world.services.store, bell=world.services.bell
    )
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        yield client


def send(client: TestClient, data: bytes, headers: dict[str, str] = ZIP, **more: Any) -> Any:
    return client.post(URL, content=data, headers=headers, **more)


def left(world: World) -> set[str]:
    """Files and folders below the uploads."""
    return {path.name for path in world.services.store.uploads.glob("*")} | files_of(world.services.store.uploads)


def test_an_archive_becomes_a_data_set_with_its_counts(client: TestClient, world: World) -> None:
    data = archive(*SPLIT)
    answer = send(client, data, params={"title": "Insects"})
    made = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == f"{URL}/{made['id']}"
    assert made["id"] == hashlib.sha256(data).hexdigest() and made["owner"] == "owner" and made["title"] == "Insects"
    assert (made["classes"], made["train_per_class"], made["test_per_class"]) == (["ant", "bee"], [3, 3], [3, 3])
    assert client.get(f"{URL}/{made['id']}").json() == made
    assert left(world) == {made["id"], f"{made['id']}/title.txt", *(f"{made['id']}/images/{name}" for name in SPLIT)}


def test_the_same_bytes_are_the_same_data_set_whoever_sends_them(client: TestClient, world: World) -> None:
    first = send(client, archive())
    again = client.post(URL, content=archive(), headers=ZIP | world.person("other").headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert all(first.json()[name] == again.json()[name] for name in ("id", "dataset", "classes", "size_bytes"))
    assert world.count(Upload) == 1 and not any("tmp" in name for name in left(world))


def test_uploads_are_listed_for_everybody_whom_they_are_shown_to(client: TestClient, world: World) -> None:
    made = send(client, archive(), params={"title": "Insects"}).json()
    unseen = client.get(URL, headers=world.person("other").headers).json()
    assert not [one for one in unseen if one["dataset"]["source"] == "upload"]
    assert client.patch(f"{URL}/{made['id']}", json={"visibility": "all"}).json()["visibility"] == "all"
    listed = client.get(URL, headers=world.person("other").headers).json()
    [found] = [one for one in listed if one["dataset"]["source"] == "upload"]
    assert (found["title"], found["classes"], found["has_test"]) == ("Insects", 2, False)
    assert found["dataset"] == made["dataset"] and found["note"] == "Uploaded by owner."


def test_a_job_is_planned_with_an_upload_and_its_set_is_prepared(client: TestClient, world: World) -> None:
    made = send(client, archive(*SPLIT), params={"title": "Insects"}).json()
    body = {"spec": spec_body(dataset={"source": "upload", "id": made["id"], "resolution": 8})}
    planned = client.post("/api/v1/jobs/plan", json=body).json()
    assert planned["dataset"] == {
        "title": "Insects", "classes": 2, "train_images": 6, "test_images": 6, "resolution": 8,
    }  # fmt: skip
    job = client.post("/api/v1/jobs", json=body)
    assert job.status_code == 201 and job.json()["name"].startswith("Insects")
    [row] = [step for step in world.steps(job.json()["id"]) if step.kind == StepKind.PREPARE]
    shown = {name: getattr(row, name) for name in PlanStep.model_fields}
    store = world.services.store
    out = store.attempt(row.key, 0)
    told = list(perform(PlanStep(**shown), store, out=out, device=torch.device("cpu")))
    assert not any(isinstance(event, Failed) for event in told)
    store.publish(row.key, out)
    data = real_data(store.step(row.key))
    assert data.classes == ("ant", "bee") and data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.shape == (6, 3, 8, 8)


def test_an_upload_is_its_owners_to_remove_and_not_while_a_job_needs_it(client: TestClient, world: World) -> None:
    made = send(client, archive()).json()
    url, body = f"{URL}/{made['id']}", {"spec": spec_body(dataset={"source": "upload", "id": made["id"]})}
    job = client.post("/api/v1/jobs", json=body).json()
    assert client.delete(url, headers=world.person("other").headers).status_code == 404
    refused = client.delete(url)
    assert refused.status_code == 409 and job["id"] in refused.json()["detail"]
    client.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == client.delete(url).status_code == 404 and not left(world)
    answer = client.post("/api/v1/jobs", json=body | {"name": "again"})
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/spec/dataset/id"
    assert send(client, archive()).status_code == 201


def test_a_job_of_another_that_keeps_an_upload_is_not_named_to_who_may_not_see_it(
    client: TestClient, world: World
) -> None:
    made, other = send(client, archive()).json(), world.person("other")
    url, body = f"{URL}/{made['id']}", {"spec": spec_body(dataset={"source": "upload", "id": made["id"]})}
    client.patch(url, json={"visibility": "all"})
    job = client.post("/api/v1/jobs", json=body | {"visibility": "private"}, headers=other.headers).json()
    refused = client.delete(url).json()
    assert refused["detail"].startswith("A job of somebody else uses this upload") and job["id"] not in str(refused)


def test_who_only_sent_the_same_bytes_reads_nothing_of_who_did_so_before(client: TestClient, world: World) -> None:
    other, third = world.person("other"), world.person("third")
    ident = send(client, archive(), params={"title": "Unannounced"}).json()["id"]
    url, dataset = f"{URL}/{ident}", {"source": "upload", "id": ident, "resolution": 8}
    held = send(client, archive(), ZIP | other.headers, params={"title": "Mine"}).json()
    assert (held["title"], held["owner"], held["visibility"], held["held"]) == ("Mine", "other", "private", True)
    body = {"spec": spec_body(dataset=dataset)}
    read = [client.get(path, headers=other.headers) for path in (url, URL, f"/datasets/uploads/{ident}", "/datasets")]
    read.append(client.post("/api/v1/jobs/plan", json=body, headers=other.headers))
    assert all("Unannounced" not in one.text and "Mine" in one.text for one in read)
    assert "by owner" not in "".join(one.text for one in read)
    assert client.get(url).json()["title"] == "Unannounced"
    client.patch(url, json={"visibility": "all"})
    assert client.get(url, headers=other.headers).json()["title"] == "Unannounced"
    assert client.get(url, headers=third.headers).json()["held"] is False


def test_a_job_calls_an_upload_as_the_jobs_owner_knows_it(client: TestClient, world: World) -> None:
    other = world.person("other")
    ident = send(client, archive(), params={"title": "Unannounced"}).json()["id"]
    send(client, archive(), ZIP | other.headers, params={"title": "Mine"})
    body = {"spec": spec_body(dataset={"source": "upload", "id": ident, "resolution": 8})}
    job = client.post("/api/v1/jobs", json=body, headers=other.headers).json()
    paths = (f"/api/v1/jobs/{job['id']}", "/api/v1/jobs", f"/jobs/{job['id']}", "/jobs")
    read = [client.get(path, headers=other.headers).text for path in paths]
    assert job["dataset_title"] == "Mine" and all("Unannounced" not in text and "Mine" in text for text in read)


def test_an_upload_that_its_owner_removes_goes_to_who_sent_the_same_bytes(client: TestClient, world: World) -> None:
    other = world.person("other")
    url = f"{URL}/{send(client, archive(), params={'title': 'Insects'}).json()['id']}"
    client.patch(url, json={"visibility": "all"})
    send(client, archive(), ZIP | other.headers, params={"title": "Mine"})
    assert client.delete(url).status_code == 204 and client.get(url).status_code == 404
    left_to = client.get(url, headers=other.headers).json()
    assert (left_to["title"], left_to["owner"], left_to["visibility"]) == ("Mine", "other", "private")
    assert client.get(f"{url}/sheet", headers=other.headers).content.startswith(b"\x89PNG")
    assert client.delete(url, headers=other.headers).status_code == 204 and not left(world)


def test_who_holds_the_bytes_of_another_lets_go_of_them_alone(client: TestClient, world: World) -> None:
    other, url = world.person("other"), f"{URL}/{send(client, archive()).json()['id']}"
    send(client, archive(), ZIP | other.headers)
    assert client.delete(url, headers=other.headers).status_code == 204
    assert client.get(url, headers=other.headers).status_code == 404
    assert client.get(f"{url}/sheet").status_code == 200
    send(client, archive(), ZIP | other.headers)
    assert client.delete(url, headers=world.person("admin").headers).status_code == 204
    assert client.get(url, headers=other.headers).status_code == 404 and not left(world)


def test_an_upload_that_is_removed_by_two_at_once_is_gone(any_world: World) -> None:
    owner, services = any_world.person("owner").user, any_world.services
    made, _ = keep(services, owner, folder_of(any_world), "d" * 64, "Insects")
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(sent.remove, services, owner, made.id, KIND) for _ in range(4)]
    became = [one.exception() for one in running]
    assert sum(one is None for one in became) == 1 and all(isinstance(one, NotFound) for one in became if one)


def test_a_job_whose_upload_is_gone_is_not_tried_again(client: TestClient, world: World) -> None:
    ident = send(client, archive()).json()["id"]
    body = {"spec": spec_body(dataset={"source": "upload", "id": ident, "resolution": 8})}
    job = client.post("/api/v1/jobs", json=body).json()
    client.post(f"/api/v1/jobs/{job['id']}/cancel")
    client.delete(f"{URL}/{ident}")
    refused = client.post(f"/api/v1/jobs/{job['id']}/retry")
    assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/spec/dataset/id"
    assert world.job(job["id"]).state == "cancelled"
    send(client, archive())
    assert client.post(f"/api/v1/jobs/{job['id']}/retry").status_code == 200


def test_an_upload_that_is_removed_and_sent_at_once_is_whole(any_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, services = any_world.person("owner").user, any_world.services
    first, _ = keep(services, owner, folder_of(any_world), "b" * 64, "First")
    sent_again = []

    def slow(_self: Store, _upload_id: str, aside: Path) -> None:
        """The row is gone already, and the files go later: here the same bytes come in between."""
        sent_again.append(keep(services, owner, folder_of(any_world), "b" * 64, "Second"))
        shutil.rmtree(aside)

    monkeypatch.setattr(Store, "remove_upload", slow)
    sent.remove(services, owner, first.id, KIND)
    [(made, is_new)] = sent_again
    assert is_new and made.title == "Second" and (services.store.upload(made.id) / "images").is_dir()
    assert not list(services.store.uploads.glob("tmp-*"))


def test_an_upload_stays_where_its_removal_is_not_committed(any_world: World) -> None:
    owner, services = any_world.person("owner").user, any_world.services
    made, _ = keep(services, owner, folder_of(any_world), "c" * 64, "Insects")

    def vanishes_in_vain() -> None:
        with sent.vanishing(services, made.id) as vanish:
            vanish()
            assert not services.store.upload(made.id).exists()
            raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError):
        vanishes_in_vain()
    assert (services.store.upload(made.id) / "images").is_dir()


def test_files_that_are_lost_come_back_with_the_same_bytes(client: TestClient, world: World) -> None:
    ident = send(client, archive()).json()["id"]
    shutil.rmtree(world.services.store.upload(ident))
    gone = client.get(f"{URL}/{ident}/sheet")
    assert gone.status_code == 422 and str(world.services.settings.home) not in gone.text
    assert send(client, archive()).status_code == 200
    assert client.get(f"{URL}/{ident}/sheet").content.startswith(b"\x89PNG")


def folder_of(world: World) -> Path:
    """What was received, as `keep` takes it."""
    folder = sent.new_folder(world.services.store.uploads)
    (folder / sent.SENT).write_bytes(archive())
    return folder


def test_a_folder_around_everything_and_what_is_no_image_are_left_out(client: TestClient, world: World) -> None:
    junk = {
        "set/readme.txt": b"hello",
        "__MACOSX/set/ant/._0.png": b"x",
        "set/ant/.DS_Store": b"x",
        "set/more.zip": archive(),
    }
    made = send(client, archive(*(f"set/{name}" for name in FLAT), more=junk)).json()
    assert made["classes"] == ["ant", "bee"] and not made["has_test"]
    images = {name for name in files_of(world.services.store.uploads) if name.endswith(".png")}
    assert images == {f"{made['id']}/images/{name}" for name in FLAT}


def test_class_names_of_any_language_are_kept(client: TestClient) -> None:
    made = send(client, archive("Käfer/1.png", "Käfer/2.png", "蜂 (bee)/1.png", "蜂 (bee)/2.png")).json()
    assert made["classes"] == ["Käfer", "蜂 (bee)"]


def many(count: int) -> bytes:
    return archive(*FLAT, more={f"ant/{index}.txt": b"" for index in range(count)})


def drawn(form: str) -> bytes:
    """A small picture in another format."""
    made = io.BytesIO()
    photo(COLOURS["ant"], 0, (12, 10)).save(made, form)
    return made.getvalue()


def large(size: int) -> bytes:
    """Bytes that pack well, and not suspiciously well."""
    return b"BM" + (NOISE * (size // len(NOISE) + 1))[: size - 2]


BMP_OF_ZEROS = b"BM" + bytes(2_500_000)
NOISE = os.urandom(25_000)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "folder in folder in folder": (lambda: archive("deep/" * 17 + "0.png"), "more than 16 folders"),
    "no zip": (lambda: b"not a zip at all", "cannot be read"),
    "nothing": (lambda: b"", "cannot be read"),
    "an empty zip": (lambda: b"PK\x05\x06" + bytes(18), "has no image"),
    "cut short": (lambda: archive()[:-300], "cannot be read"),
    "a damaged image": (lambda: patched(archive(method=0), png(0)[60:70], b"??????????"), "cannot be read"),
    "an absolute path": (lambda: archive(*FLAT, more={entry("/etc/x.png"): png()}), "absolute path"),
    "a drive": (lambda: archive(*FLAT, more={entry("C:/ant/x.png"): png()}), "absolute path"),
    "a way up": (lambda: archive(*FLAT, more={entry("../ant/x.png"): png()}), "`..`"),
    "a way up inside": (lambda: archive(*FLAT, more={entry("ant/../../x.png"): png()}), "`..`"),
    "a way up of no image": (lambda: archive(*FLAT, more={entry("../x.txt"): b""}), "`..`"),
    "a backslash": (lambda: archive(*FLAT, more={entry("ant\\..\\x.png"): png()}), "backslash"),
    "a double slash": (lambda: archive(*FLAT, more={entry("ant//x.png"): png()}), "empty"),
    "a NUL": (lambda: patched(archive(*FLAT, "ant/x.png?.txt"), b"x.png?.txt", b"x.png\0.txt"), "not printed"),
    "a turn of direction": (lambda: archive(*FLAT, more={entry("ant/\u202egnp.png"): png()}), "not printed"),
    "a link": (lambda: archive(*FLAT, more={entry("ant/x.png", stat.S_IFLNK | 0o777): b"/etc/passwd"}), "link"),
    "a device": (lambda: archive(*FLAT, more={entry("ant/x.png", stat.S_IFCHR | 0o666): b""}), "device"),
    "a queue": (lambda: archive(*FLAT, more={entry("ant/x", stat.S_IFIFO | 0o666): b""}), "device"),
    "encryption": (lambda: with_flag(archive(), 1), "encrypted"),
    "lzma": (lambda: archive(method=zipfile.ZIP_LZMA), "compressed in a way"),
    "a name twice": (lambda: archive(*FLAT, "ant/0.png"), "twice"),
    "classes alike but for case": (lambda: archive(*FLAT, "Ant/9.png"), "one name"),
    "files alike but for case": (lambda: archive(*FLAT, "ant/X.png", "ant/x.png"), "one name"),
    "accents in two ways": (lambda: archive(*FLAT, "\u00e9/1.png", "e\u0301/2.png"), "one name"),
    "a file and a folder": (lambda: archive(*FLAT, "ant/x.png", "ant/x.png/y.png"), "one name"),
    "overlapping entries": (overlapping, "overlaps"),
    "a forged size": (lambda: patched(archive(*FLAT, more={"ant/x.png": png() + NOISE[:1500]}, method=0),
        (len(png()) + 1500).to_bytes(4, "little") * 2, (len(png()) + 1500).to_bytes(4, "little") + bytes([200, 0, 0, 0])),
        "cannot be read"),
    "too many entries": (lambda: many(60), "entries, and the limit is 40"),
    "a bomb": (lambda: archive(*FLAT, more={"ant/x.bmp": BMP_OF_ZEROS}), "packed to less than"),
    "many small bombs": (
        lambda: archive(*FLAT, more={f"ant/{index}.bmp": b"BM" + bytes(900_000) for index in range(2)}),
        "images are packed to less than",
    ),
    "too large an image": (lambda: archive(*FLAT, more={"ant/x.bmp": large(1_200_000)}), "the limit is 1,000,000"),
    "too much in all": (
        lambda: archive(*FLAT, more={f"ant/{index}.bmp": large(900_000) for index in range(3)}),
        "the limit is 2,000,000",
    ),
    "a path without end": (lambda: archive(*FLAT, more={entry("a/" * 30_000 + "x.png"): b""}), "more than 1024"),
    "text called an image": (lambda: archive(*FLAT, more={"ant/x.png": b"<svg onload=alert(1)>"}), "called an image"),
    "an empty image": (lambda: archive(*FLAT, more={"ant/x.png": b""}), "is empty"),
    "a broken first image": (lambda: archive(*FLAT, more={"aaa/0.png": b"\x89PNG\r\n\x1a\n", "aaa/1.png": png()}), "aaa/"),
    "a name that no folder should have": (lambda: archive(*FLAT, "a|b/1.png", "a|b/2.png"), "no name"),
    "a blank at the end": (lambda: archive(*FLAT, "cat /1.png", "cat /2.png"), "no name"),
    "a name that is too long": (lambda: archive(*FLAT, f"{'x' * 201}/1.png"), "no name"),
    "images without a class": (lambda: archive(*FLAT, "0.png"), "folder of a class"),
    "images too deep": (lambda: archive(*FLAT, "ant/old/0.png"), "folder of a class"),
    "no images": (lambda: archive("readme.txt"), "1 file ending in .txt"),
    "more pixels than is sane": (
        lambda: archive(*FLAT, more={"ant/x.png": flat_png(6_000)}), "more than 25,000,000 pixels"),
    "half an image": (lambda: archive(*FLAT, more={"ant/x.png": png()[:-40]}), "ant/x.png cannot be read"),
    "a GIF called PNG": (lambda: archive(*FLAT, more={"ant/x.png": drawn("GIF")}), "called an image"),
    "a TIFF called JPEG": (lambda: archive(*FLAT, more={"ant/x.jpg": drawn("TIFF")}), "called an image"),
    "two images that cannot be read": (
        lambda: archive(*FLAT, more={"ant/x.png": b"", "ant/y.png": png()[:-40]}), "2 of 10 images cannot be read"),
    "one class": (lambda: archive("ant/0.png", "ant/1.png"), "1 class folder, ant"),
    "a class of one image": (lambda: archive(*FLAT, "cat/1.png"), "single image"),
    "other classes for testing": (lambda: archive(*SPLIT, "test/cat/1.png"), "There is no folder for cat in train/"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_broken_or_hostile_is_refused_in_words_and_leaves_nothing(
    strict: TestClient, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, told = HOSTILE[name]
    caplog.set_level("INFO", "app.confined")
    before = files_of(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, of names that are made twice
        data = make()
    answer = send(strict, data)
    problem = answer.json()
    assert answer.status_code == 422, problem
    assert any(part in problem["detail"] for part in told.split("|")) and problem["hint"], problem
    assert str(tmp_path) not in answer.text
    told_of = [vars(record) for record in caplog.records if record.name == "app.confined"]
    assert all(one["peak_bytes"] < 100 * 2**20 for one in told_of)
    assert not left(world) and world.count(Upload) == 0
    assert {path for path in files_of(tmp_path) - before if not path.startswith("fadrm.db")} <= {"secret"}


def test_what_is_around_a_picture_does_not_reach_the_store(client: TestClient, world: World) -> None:
    made = io.BytesIO()
    photo(COLOURS["ant"], 0, (12, 10)).save(made, "JPEG", comment=b"51.5007N 0.1246W")
    data = archive(*FLAT, more={"ant/x.jpg": made.getvalue() + archive()})
    upload = send(client, data).json()
    folder = world.services.store.uploads / upload["id"] / "images"
    kept = (folder / "ant/x.jpg").read_bytes()
    assert b"51.5007N" not in kept and kept.endswith(b"\xff\xd9") and upload["train_per_class"] == [4, 3]
    assert upload["unpacked_bytes"] == sum(path.stat().st_size for path in folder.rglob("*.*"))


def test_what_grows_when_it_is_written_anew_is_held_against_the_limits(world: World, owner: Person) -> None:
    made, turned = io.BytesIO(), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    photo(COLOURS["ant"], 0, (300, 300)).save(made, "WEBP", quality=5, exif=turned)
    data = archive(*FLAT, more={"ant/x.webp": made.getvalue()})
    for setting, told in (
        ("max_upload_file_bytes", "more than 20,000 bytes, written anew"),
        ("max_upload_unpacked_bytes", "more than 20,000 bytes, written anew"),
    ):
        settings = world.services.settings.model_copy(update={setting: 20_000})
        services = replace(world.services, settings=settings)
        with TestClient(create_app(services, background=False), headers=owner.headers) as client:
            refused = send(client, data)
            assert refused.status_code == 422 and told in refused.json()["detail"] and not left(world)


def test_images_that_cannot_be_read_are_named_and_may_be_left_out_where_they_are_few(
    client: TestClient, world: World
) -> None:
    bad = {f"ant/bad{index}.png": png()[:-40] for index in range(25)}
    refused = send(client, archive(more=bad), params={"skip_bad": True})
    assert refused.status_code == 422 and "25 of 33 images" in refused.json()["detail"]
    files = refused.json()["details"]["files"]
    assert [file["name"] for file in files] == sorted(bad, key=list(bad).index)[:20] and files[0]["reason"]
    one = archive(more={"ant/bad.png": b""})
    refused = send(client, one)
    assert refused.status_code == 422 and "skip_bad=true" in refused.json()["hint"]
    made = send(client, one, params={"skip_bad": True}).json()
    assert made["skipped"] == 1 and made["skipped_files"] == [{"name": "ant/bad.png", "reason": "it is empty"}]
    assert made["train_per_class"] == [3, 3]
    assert not any("bad" in name for name in left(world))


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("max_unpacking_s", 1, "more than 1 seconds"), ("max_unpacking_bytes", 2**28, "too much memory")],
)
def test_reading_an_archive_takes_only_so_much_time_and_memory(
    world: World, tmp_path: Path, setting: str, value: int, told: str
) -> None:
    slow, greedy = {f"ant/p{n}.png": flat_png(4_900) for n in range(40)}, {"ant/p.png": flat_png(18_000)}
    path = tmp_path / "bomb.zip"
    path.write_bytes(archive(more=slow if setting == "max_unpacking_s" else greedy))
    settings = world.services.settings.model_copy(update={setting: value, "max_upload_pixels": 10**9})
    with pytest.raises(Unprocessable) as refused:
        confined.unpack(path, tmp_path / "set", settings)
    assert told in refused.value.detail


def test_a_reader_that_dies_is_an_answer_too(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "PYTHON", (sys.executable, "-c", "import os; os.abort()"))
    with pytest.raises(Unprocessable, match="ended the program"):
        confined.unpack(tmp_path / "any.zip", tmp_path / "set", world.services.settings)


def test_damage_of_any_kind_is_refused_in_words_and_writes_nowhere_else(tmp_path: Path) -> None:
    outcomes = generated(150, tmp_path)
    assert outcomes["refused"] > 100 and outcomes.total() == 150


def test_a_user_may_send_only_so_much(world: World, owner: Person) -> None:
    first = archive()
    update = LIMITS | {"max_upload_bytes_per_user": len(archive(*SPLIT)) + 500}
    assert len(archive(*SPLIT)) > 500
    services = replace(world.services, settings=world.services.settings.model_copy(update=update))
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        made = send(client, first)
        refused = send(client, archive(*SPLIT))
        assert refused.status_code == 429 and "FADRM_MAX_UPLOAD_BYTES_PER_USER" in refused.json()["hint"]
        assert send(client, archive(*SPLIT), headers=ZIP | world.person("other").headers).status_code == 201
        client.delete(f"{URL}/{made.json()['id']}")
        assert send(client, archive(*SPLIT)).status_code == 200


def test_what_an_upload_takes_in_the_store_counts_whether_or_not_its_size_was_said(world: World, owner: Person) -> None:
    update = {"max_upload_bytes_per_user": 1_000}
    services = replace(world.services, settings=world.services.settings.model_copy(update=update))
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        refused = client.post(URL, content=iter([archive()]), headers=ZIP)  # in chunks: without a length
        assert refused.status_code == 429 and "exceed the limit of 1,000" in refused.json()["detail"]
        assert not left(world) and world.count(Upload) == 0


@pytest.mark.parametrize("says_its_size", [True, False])
def test_more_bytes_than_the_limit_are_not_taken(strict: TestClient, world: World, says_its_size: bool) -> None:
    data = os.urandom(LIMITS["max_upload_bytes"] + 1)
    answer = strict.post(URL, content=data if says_its_size else iter([data[:50_000], data[50_000:]]), headers=ZIP)
    assert answer.status_code == 413 and "200,000 bytes" in answer.json()["detail"] and not left(world)


def test_other_routes_keep_their_small_limit(client: TestClient) -> None:
    assert client.post("/api/v1/jobs", content=bytes(2**20 + 1)).status_code == 413
    assert send(client, archive(*FLAT, more={"notes.bin": os.urandom(2**21)})).status_code == 201


def test_only_a_zip_is_taken_as_a_body(client: TestClient, world: World) -> None:
    answer = client.post(URL, content=archive(), headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 422 and "application/zip" in answer.json()["hint"] and not left(world)


def test_a_cookie_alone_uploads_nothing(anonymous: TestClient, world: World, owner: Person) -> None:
    assert anonymous.post("/login", data={"token": owner.token}).status_code == 303
    answer = anonymous.post(URL, content=archive(), headers=ZIP)
    assert answer.status_code == 403 and not left(world)


def test_an_upload_that_breaks_off_leaves_nothing(world: World) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield archive()[:500]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        alone(sent.receive(world.services, body(), KIND))
    assert not left(world)


def test_what_a_dead_server_left_is_removed_after_a_day(client: TestClient, world: World) -> None:
    old, new = (world.services.store.uploads / f"tmp-{age}" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    day_ago = time.time() - 25 * 3600
    os.utime(old, (day_ago, day_ago))
    assert send(client, archive()).status_code == 201
    assert not old.exists() and new.exists()


def test_the_client_sends_a_file(app: FastAPI, owner: Person, tmp_path: Path) -> None:
    path = tmp_path / "insects.zip"
    path.write_bytes(archive())
    with (
        TestClient(app, follow_redirects=False) as inner,
        Client("http://testserver", owner.token, transport=InProcess(inner)) as remote,
    ):
        assert remote.upload(path, "Insects") == remote.upload(path, "Another title")


def test_on_every_database_an_upload_stays_while_a_job_uses_it(any_world: World) -> None:
    owner, ident = any_world.person("owner"), "0" * 64
    spec = SPEC.model_copy(update={"dataset": Source(id=ident)})
    with any_world.services.database.write() as session:
        session.add(Upload(id=ident, owner_id=owner.user.id, title="Insects", size_bytes=1, facts={}))
        jobs.create(session, owner=owner.user, name="a job", spec=spec, plan=chain("a"))
    with pytest.raises(Conflict):
        sent.remove(any_world.services, owner.user, ident, KIND)
    any_world.work()
    sent.remove(any_world.services, owner.user, ident, KIND)
    assert any_world.count(Upload) == 0


def test_an_upload_that_a_job_is_just_being_made_from_is_not_removed(any_world: World) -> None:
    owner, ident, services = any_world.person("owner"), "a" * 64, any_world.services
    spec = SPEC.model_copy(update={"dataset": Source(id=ident)})
    with services.database.write() as session:
        session.add(Upload(id=ident, owner_id=owner.user.id, title="Insects", size_bytes=1, facts={}))
    with ThreadPoolExecutor() as pool:
        with services.database.write() as session:
            jobs.create(session, owner=owner.user, name="a job", spec=spec, plan=chain("a"))
            removed = pool.submit(sent.remove, services, owner.user, ident, KIND)
            assert not wait([removed], timeout=0.5).done, "it waits for the job"
        with pytest.raises(Conflict):
            removed.result(timeout=10)
    assert any_world.count(Upload) == 1


@pytest.mark.parametrize("by_form", [False, True])
def test_archives_that_wait_to_be_read_hold_nobody_up(world: World, owner: Person, by_form: bool) -> None:
    app = create_app(replace(world.services), background=False)
    turns, most = app.state.unpacking, world.services.settings.max_unpacking_at_once
    with TestClient(app, headers=owner.headers, follow_redirects=False) as client, ThreadPoolExecutor() as pool:

        def send() -> int:
            if by_form:
                return client.post("/datasets", files={"file": ("ants.zip", archive())}).status_code
            return client.post(URL, content=archive(), headers=ZIP).status_code

        assert client.portal is not None
        client.portal.call(setattr, client.portal.call(current_default_thread_limiter), "total_tokens", 2)
        for _ in range(most):
            turns.acquire()
        sent_meanwhile = [pool.submit(send) for _ in range(3)]
        assert not wait(sent_meanwhile, timeout=1).done
        assert pool.submit(client.get, "/api/v1/me").result(timeout=10).status_code == 200
        for _ in range(most):
            turns.release()
        assert {one.result(timeout=60) for one in sent_meanwhile} <= {200, 201, 303}
