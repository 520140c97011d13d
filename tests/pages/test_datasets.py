"""The pages of data sets: what there is, what is in one, and archives that are sent from a browser."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect
from starlette.testclient import TestClient

from app.models import Job, utc_now
from engine.sources import Upload
from tests.app.archives import FLAT, archive
from tests.pages.site import SMALL, Site
from tests.pages.visitor import Opener

ZIP = {"Content-Type": "application/zip"}


def csrf_of(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]*)"', page)
    assert found
    return found[1]


def send(client: TestClient, data: bytes, **fields: str) -> str:
    """The page after the form was posted, as a browser without scripts does."""
    form = {"csrf": csrf_of(client.get("/datasets").text), **fields}
    return client.post("/datasets", data=form, files={"file": ("insects.zip", data, "application/zip")}).text


def test_a_form_without_scripts_makes_a_data_set_that_can_be_distilled(client: TestClient, site: Site) -> None:
    page = send(client, archive(*FLAT))
    assert "<h1>insects</h1>" in page and "ant" in page and "No job that you may see" in page
    sheet = re.search(r'src="(/api/v1/datasets/[0-9a-f]{64}/sheet)"', page)
    assert sheet and client.get(sheet[1]).content.startswith(b"\x89PNG")
    distil = re.search(r'href="(/jobs/new\?upload=[0-9a-f]{64})"', page)
    assert distil and 'value="upload" checked' in client.get(distil[1]).text
    assert "insects" in client.get("/datasets").text


def test_a_data_set_names_the_jobs_that_use_it_and_not_those_in_the_trash(client: TestClient, site: Site) -> None:
    page = send(client, archive(*FLAT))
    [upload_id] = set(re.findall(r"/jobs/new\?upload=([0-9a-f]{64})", page))
    assert f'<option value="{upload_id}">insects</option>' in client.get("/jobs/new").text
    job_id = site.submit("Insects", SMALL.model_copy(update={"dataset": Upload(id=upload_id), "ipc": 1}))
    path = f"/datasets/uploads/{upload_id}"
    assert f"/jobs/{job_id}" in client.get(path).text
    assert (
        f'href="{path}">insects</a>' in client.get(f"/jobs/{job_id}").text
        and ">insects</td>" in client.get("/jobs").text
    )
    with site.services.database.write() as session:
        session.get_one(Job, job_id).deleted_at = utc_now()
    assert f"/jobs/{job_id}" not in client.get(path).text


def test_images_that_cannot_be_read_are_named_on_the_page(client: TestClient) -> None:
    data = archive(more={"ant/<b>.png": b"", "ant/bad.png": b""})
    page = send(client, archive(more={"ant/bad.png": b""}))
    assert "ant/bad.png" in page and "it is empty" in page
    assert "&lt;b&gt;" in send(client, data) and "<b>.png" not in send(client, data)
    page = send(client, archive(more={"ant/bad.png": b""}), skip_bad="true", title="With a gap")
    assert "<h1>With a gap</h1>" in page and "1 image cannot be read and was left out" in page


def test_who_sees_an_upload_is_shown_and_changed_on_its_page(client: TestClient, site: Site) -> None:
    page = send(client, archive(*FLAT))
    path = re.search(r'action="(/datasets/uploads/[0-9a-f]{64}/visibility)"', page)
    assert path and "only its owner" in page and "Show to everybody" in page
    assert "Seen by only its owner" in client.get("/datasets").text
    changed = client.post(path[1], data={"csrf": csrf_of(page), "visibility": "all"}).text
    assert "<summary>everybody</summary>" in changed and "Show to its owner" in changed
    assert "Seen by everybody" in client.get("/datasets").text
    site.demote()
    assert "Show to" not in client.get(path[1].removesuffix("/visibility")).text


def test_a_folder_below_the_roots_has_a_page(client: TestClient, site: Site) -> None:
    root = site.services.settings.data_roots[0]
    for name in FLAT:
        path = root / "insects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive_member(name))
    page = client.get("/datasets").text
    assert "Folders on the server" in page and "Built in" in page
    link = re.search(r'href="(/datasets/folder\?path=[^"]+)"', page)
    assert link and "Share of the largest" in client.get(link[1]).text
    assert client.get("/datasets/folder?path=/etc").status_code == 422


def archive_member(name: str) -> bytes:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(archive())) as opened:
        return opened.read(name)


def test_a_browser_sends_in_pieces_and_shows_what_is_in_it(visit: Opener, tmp_path: Path) -> None:
    path = tmp_path / "insects.zip"
    path.write_bytes(archive(*FLAT))
    page = visit("/datasets")
    page.set_input_files("#file", path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="insects")).to_be_visible()
    expect(page.get_by_role("link", name="Distil this")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("heading", name="Data sets")).to_be_visible()
    assert page.get_by_text("Uploaded by").count() == 0
