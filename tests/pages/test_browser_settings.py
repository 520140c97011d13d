"""The settings in a real browser: a token is seen once, somebody is invited and comes in, what is refused says so in its place."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.pages.site import Site
from tests.pages.visitor import Opener, Visitor

pytestmark = pytest.mark.browser
PASSWORD = "a horse eats batteries"


def test_a_token_is_shown_once_and_revoked_with_a_question(visit: Opener, site: Site) -> None:
    page = visit("/settings")
    page.get_by_label("What it is for").fill("notebook")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#made-token")).to_contain_text("fadrm_")
    plain = page.locator("#made-token").inner_text()
    page.goto("/settings")
    assert plain not in page.content()
    page.on("dialog", lambda asked: asked.accept())
    page.get_by_role("row", name="notebook").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name="notebook")).to_have_count(0)


def test_who_is_invited_sets_a_password_and_is_in(visit: Opener, visitor: Visitor, site: Site) -> None:
    page = visit("/settings/people")
    form = page.get_by_role("form", name="Make an account")
    form.get_by_label("Name").fill("ada")
    form.get_by_role("button", name="Make an account").click()
    link = page.locator("#link").inner_text()
    invited = visitor.open(link[link.index("/invitation") :], logged_in=False)
    invited.get_by_label("Password", exact=True).fill(PASSWORD)
    invited.get_by_label("The same again").fill(PASSWORD)
    invited.get_by_role("button", name="Set password and log in").click()
    expect(invited.get_by_role("heading", name="Jobs")).to_be_visible()
    invited.goto("/settings")
    expect(invited.locator("dl.facts").first).to_contain_text("ada")


def test_passwords_that_differ_are_refused_beside_their_fields(visit: Opener, visitor: Visitor, site: Site) -> None:
    visitor.may_fail = True  # 422 is what is wanted
    page = visit("/settings", viewport={"width": 390, "height": 844})
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD + "!")
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_role("alert")).to_be_visible()
