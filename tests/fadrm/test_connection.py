"""Which server a client speaks to, and with which token."""

from __future__ import annotations

from pathlib import Path

import pytest

from fadrm import Unreachable
from fadrm.connection import FILE, Connection, find

HERE = Connection(url="http://127.0.0.1:8080", token="fadrm_here")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FADRM_URL", "FADRM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FADRM_HOME", str(tmp_path))
    return tmp_path


def test_without_a_server_the_remedy_is_told() -> None:
    with pytest.raises(Unreachable) as nothing:
        find()
    assert "fadrm up" in nothing.value.hint


def test_the_server_of_this_machine_is_found(home: Path) -> None:
    (home / FILE).write_text(HERE.model_dump_json())
    assert find() == find(f"{HERE.url}/").model_copy(update={"url": HERE.url}) == HERE


def test_its_token_goes_to_no_other_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / FILE).write_text(HERE.model_dump_json())
    assert find("http://elsewhere").token == ""
    monkeypatch.setenv("FADRM_URL", "http://elsewhere")
    assert find().token == ""


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FADRM_URL", "http://elsewhere")
    monkeypatch.setenv("FADRM_TOKEN", "fadrm_environment")
    assert find() == Connection(url="http://elsewhere", token="fadrm_environment")
    assert find("http://given", "fadrm_given") == Connection(url="http://given", token="fadrm_given")
