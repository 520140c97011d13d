"""The page of the store: what lies there, what can go, and the trash, without scripts."""

from __future__ import annotations

import re

from starlette.testclient import TestClient

from app.storage.stored import reconcile
from tests.pages.site import Site


def post(client: TestClient, page: str, action: str) -> str:
    """Press the button of a page; the page that follows."""
    html = client.get(page).text
    assert f'action="{action}"' in html, re.findall(r'action="([^"]+)"', html)
    csrf = re.search(r'name="csrf" value="([^"]+)"', html)
    assert csrf is not None
    answer = client.post(action, data={"csrf": csrf[1]})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_job_is_kept_deleted_restored_and_removed_by_buttons(client: TestClient, site: Site) -> None:
    job = site.submit("Digits of mine")
    site.player.play()
    url = f"/jobs/{job}"
    kept = post(client, url, f"{url}/keep")
    assert "with all its steps, as admin asked" in kept and f"{url}/delete" not in kept
    post(client, url, f"{url}/keep?pinned=false")
    assert "Digits of mine" not in post(client, url, f"{url}/delete")
    assert client.get(url).status_code == 404
    page = client.get("/storage").text
    assert "Digits of mine" in page and "Removed truly" in page
    assert "Digits of mine" in post(client, "/storage", f"{url}/restore")
    post(client, url, f"{url}/delete")
    assert "The trash is empty." in post(client, "/storage", f"/storage/jobs/{job}/remove")


def test_the_page_tells_what_is_in_the_store_and_what_can_go(client: TestClient, site: Site) -> None:
    empty = client.get("/storage").text
    assert "There is nothing in the store." in empty and "Nothing has served its time yet" in empty
    site.submit("Digits of mine")
    site.player.play()
    with site.services.database.write() as session:
        reconcile(session, site.services.store)
    full = client.get("/storage").text
    for told in ("By kind", "Downloads", "By user", "By job", "Digits of mine", "no limit", "free of"):
        assert told in full, told


def test_who_may_only_look_has_no_buttons(client: TestClient, site: Site) -> None:
    job = site.submit()
    site.player.play()
    site.demote()
    assert "/storage/clean" not in client.get("/storage").text
    assert "/keep" not in client.get(f"/jobs/{job}").text
