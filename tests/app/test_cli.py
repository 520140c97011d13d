"""The command line against a served app, and on the files of this machine."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from app import cli, terminal
from app.main import create_app, server
from app.redis_server import write_private
from app.settings import Settings, load
from fadrm import Client
from fadrm.connection import FILE, Connection
from fadrm.progress import follow
from tests.app.archives import archive
from tests.app.running import free_port
from tests.app.tensor_files import weights
from tests.app.world import Person, World, chain, damage, spec_body

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run("list")` -> exit code, stdout, stderr of `fadrm list`."""
    monkeypatch.setenv("FADRM_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fadrm", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capfd.readouterr()
        return (ended.value.code or 0, told.out, told.err)  # type: ignore[return-value]

    return run


@pytest.fixture
def served(world: World, owner: Person, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The app on a port of this machine; the environment says where."""
    port = free_port()
    running = server(create_app(world.services), host="127.0.0.1", port=port)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    monkeypatch.setenv("FADRM_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("FADRM_TOKEN", owner.token)
    yield world
    running.should_exit = True
    thread.join(10)


def test_help_names_every_command() -> None:
    told = CliRunner().invoke(cli.app, ["--help"]).output
    words = "up, serve, worker, migrate, login, token, settings, submit, plan, list, watch, download, doctor"
    controls = ", cancel, pause, resume, retry"
    for name in (words + controls).split(", "):
        assert f" {name} " in told


def test_a_job_from_submission_to_download(served: World, run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(spec_body()))
    code, told, _ = run("plan", str(spec))
    assert code == 0 and "prepare" in told
    code, job_id, told = run("submit", str(spec), "--name", "from a file")
    job_id = job_id.strip()
    assert code == 0 and job_id.startswith("job_") and "from a file" in told
    served.work()
    code, told, _ = run("watch", job_id)
    assert code == 0
    assert "Random real images" in told and "90.0" in told and "97.5 %" in told
    code, told, _ = run("list")
    assert code == 0 and job_id in told and "succeeded" in told
    code, told, _ = run("download", job_id, "--to", str(tmp_path / "got"))
    assert code == 0 and (tmp_path / "got" / "card.md").read_text() == "# A card\n"


def test_a_terminal_gets_bars_and_the_moment_of_the_first_images(served: World, owner: Person) -> None:
    job = served.submit(owner, chain("bars", 3))
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    worker = threading.Timer(0.5, served.work)
    worker.start()
    with Client(Settings().url, owner.token) as client:
        ended = follow(client, job.id, console)
    worker.join()
    assert ended.state == "succeeded"
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "✔ Recover" in told and "100 %" in told and "First images after" in told


def test_every_answer_is_there_as_json(served: World, run: Run, owner: Person, tmp_path: Path) -> None:
    told = json.loads(run("plan", "--preset", "demo", "--json")[1])
    assert told["steps"] and told["estimate"]["seconds"]["cpu"] > 0
    job = json.loads(run("submit", "--preset", "demo", "--json")[1])
    assert json.loads(run("pause", job["id"], "--json")[1])["paused_by"] == "owner"
    assert json.loads(run("resume", job["id"], "--json")[1])["paused_by"] is None
    assert json.loads(run("spec", job["id"], "--json")[1])["dataset"]["source"] == "digits"
    served.work()
    (listed,) = json.loads(run("list", "--json")[1])["data"]
    assert listed["id"] == job["id"] and listed["state"] == "succeeded"
    events = [json.loads(line) for line in run("watch", job["id"], "--json")[1].splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    lines = [json.loads(line) for line in run("logs", job["id"], "--json")[1].splitlines()]
    assert lines[-1]["message"] == "Job succeeded."
    (got, *_) = json.loads(run("download", job["id"], "--to", str(tmp_path), "--json")[1])
    assert Path(got["path"]).stat().st_size == got["size_bytes"] and len(got["sha256"]) == 64
    settings = {setting["variable"] for setting in json.loads(run("settings", "--json")[1])}
    assert "FADRM_HOME" in settings


def test_a_plan_is_a_table_a_sentence_and_what_comes_next(served: World, run: Run) -> None:
    code, told, _ = run("plan", "--preset", "demo")
    assert code == 0 and "{" not in told and "to do" in told
    assert "steps are to do: roughly" in told and "on a CPU" in told
    assert told.rstrip().endswith("Submit it: fadrm submit --preset demo")


def test_a_list_never_wraps(served: World, run: Run, owner: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    job = served.submit(owner, chain("wide"), name="a name of eighty characters that no narrow terminal can hold")
    monkeypatch.setenv("COLUMNS", "60")
    _, told, _ = run("list")
    assert len(told.splitlines()) == 2 and job.name in told  # a pipe gets it whole
    narrow = Console(file=io.StringIO(), force_terminal=True, width=60, no_color=True)
    terminal.print_table(narrow, ("Id", "Name"), [(job.id, job.name)])
    assert isinstance(narrow.file, io.StringIO)
    lines = narrow.file.getvalue().splitlines()
    assert len(lines) == 2 and job.id in lines[1] and "…" in lines[1]


def test_a_list_is_narrowed(served: World, run: Run, owner: Person) -> None:
    mine = served.submit(owner, chain("m"), name="mine")
    other = served.submit(served.person("admin"), chain("o"), name="other")
    assert other.id not in run("list", "--mine")[1] and mine.id in run("list", "--mine")[1]
    assert mine.id in run("list", "--search", "MIN")[1] and mine.id not in run("list", "--search", "x")[1]
    assert mine.id in run("list", "--state", "queued")[1] and mine.id not in run("list", "--state", "failed")[1]


def test_two_jobs_are_compared(served: World, run: Run, tmp_path: Path) -> None:
    ids = []
    for seed in (1, 2):
        file = tmp_path / f"{seed}.json"
        file.write_text(json.dumps(spec_body(seed=seed)))
        ids.append(run("submit", str(file))[1].strip())
    served.work()
    code, told, _ = run("compare", *ids)
    assert code == 0 and "/seed" in told and "/ipc" not in told and "90.0 ± 0.0" in told
    assert json.loads(run("compare", *ids, "--json")[1])["differences"][0]["values"] == [1, 2]
    assert run("compare", ids[0])[0] == cli.REFUSED


def test_a_spec_is_printed_to_be_sent_again(served: World, run: Run, tmp_path: Path) -> None:
    job_id = run("submit", "--preset", "demo")[1].strip()
    file = tmp_path / "again.yaml"
    file.write_text(run("spec", job_id)[1])
    code, again, _ = run("submit", str(file), "--json")
    assert (
        code == 0 and json.loads(again)["spec_sha256"] == json.loads(run("cancel", job_id, "--json")[1])["spec_sha256"]
    )


def test_exit_codes_are_told(run: Run) -> None:
    code, told, _ = run("--help")
    assert code == 0
    for number, meaning in cli.EXIT_CODES.items():
        assert str(number) in told and meaning.partition(":")[0] in " ".join(told.replace("│", " ").split())


def test_a_shell_can_complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_FADRM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "fadrm do")
    monkeypatch.setenv("COMP_CWORD", "1")
    code, told, _ = run()
    assert code == 0 and told.split() == ["doctor", "download"]


def test_a_preset_is_submitted_and_cancelled(served: World, run: Run) -> None:
    code, job_id, _ = run("submit", "--preset", "demo")
    code, told, _ = run("cancel", job_id.strip())
    assert code == 0 and "Cancelled" in told
    code, _, told = run("cancel", job_id.strip() + "x")
    assert code == cli.REFUSED and "There is no job" in told


def test_a_job_is_paused_resumed_cancelled_and_tried_again(served: World, run: Run, owner: Person) -> None:
    job = served.submit(owner, chain("p"))
    said = [run(word, job.id)[:2] for word in ("pause", "resume", "cancel", "retry")]
    assert [code for code, _ in said] == [0] * 4
    assert [words.split()[0] for _, words in said] == ["Paused", "Waiting:", "Cancelled.", "Waiting:"]


def test_waiting_for_a_job_that_fails_is_an_exit_code(served: World, run: Run, owner: Person) -> None:
    job = served.submit(owner, chain("f"))
    lease = served.claim()
    assert lease is not None
    served.fail(lease, "The loss is not finite.")
    code, told, _ = run("watch", job.id)
    assert code == cli.FAILED and "The loss is not finite." in told and "Lower it." in told


def test_a_wrong_spec_is_told_field_by_field(served: World, run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(spec_body(ipc=-1, wrong=1)))
    code, _, told = run("submit", str(spec))
    assert code == cli.REFUSED
    assert "/spec/ipc" in told and "/spec/wrong" in told
    spec.write_text("[1, 2")
    assert run("submit", str(spec))[0] == cli.REFUSED
    assert run("submit")[0] == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: 2026-11-21\nspec: {}", "/name (2026-11-21)"),
        ("ipc: 1\nlabels: {epochs: .nan}", "/labels/epochs (nan)"),
        ("teachers: [{lr: .inf}]", "/teachers/0/lr (inf)"),
        ("2026-11-21: 1", "keys must be"),
        ("a: &a [*a]", "Circular"),
        ("a: !!set {b}", "/a"),
        ("[" * 5000, "cannot be read"),
        ("a: 2026-99-99", "cannot be read"),
    ],
)
def test_what_only_yaml_can_say_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, told: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    monkeypatch.setenv("FADRM_URL", "http://127.0.0.1:1")  # it is never asked
    code, _, said = run("submit", str(spec))
    assert code == cli.REFUSED and told in said, said
    assert "quotes" in said or "YAML or JSON" in said


@pytest.mark.parametrize("token", ["fädrm_x", "fadrm_x\n", "a b", "“fadrm”"])
def test_a_token_that_is_none_is_said_to_be_none(run: Run, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("FADRM_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FADRM_TOKEN", token)
    code, _, told = run("list")
    assert code == cli.REFUSED and "FADRM_TOKEN" in told and "fadrm_x" not in told


@pytest.mark.parametrize("url", ["http://[", "127.0.0.1:8080", "http://", "http://a:99999", "nonsense", "http://a b/"])
def test_an_address_that_is_none_is_said_to_be_none(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FADRM_URL", url)
    code, _, told = run("list")
    assert code == cli.NO_ANSWER and "no address of a server" in told and "http://HOST:PORT" in told


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("FADRM_LEASE_S", "soon", "FADRM_LEASE_S is 'soon'"),
        ("FADRM_THREADS", "-1", "FADRM_THREADS is '-1'"),
        ("FADRM_HOSTS", '["a', "FADRM_HOSTS is '[\"a'"),
    ],
)
def test_a_wrong_setting_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, _, said = run("doctor")
    assert code == cli.FAILED and told in said


@pytest.mark.parametrize("value", ["/data,/scratch/sets", " /data, /scratch/sets ,", '["/data", "/scratch/sets"]'])
def test_a_list_may_be_written_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FADRM_DATA_ROOTS", value)
    monkeypatch.setenv("FADRM_HOSTS", "[::1],gpu.lab")
    found = load()
    assert found.data_roots == (Path("/data"), Path("/scratch/sets")) and found.hosts == ("[::1]", "gpu.lab")


def test_every_setting_is_listed_with_its_source_and_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FADRM_SECRET", "swordfish")
    monkeypatch.setenv("FADRM_DATABASE_URL", "postgresql://u:swordfish@h/d")
    monkeypatch.setenv("FADRM_LEASE_S", "90")
    code, told, _ = run("settings")
    assert code == 0 and "swordfish" not in told and "postgresql://u:***@h/d" in told
    assert "FADRM_LEASE_S = 90.0   environment" in told and "FADRM_GRACE_S = 30.0   default" in told
    for name, field in Settings.model_fields.items():
        assert f"FADRM_{name.upper()} = " in told and field.description and field.description in told


def test_without_a_server_the_remedy_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, told = run("list")
    assert code == cli.NO_ANSWER and "fadrm up" in told
    monkeypatch.setenv("FADRM_URL", f"http://127.0.0.1:{free_port()}")
    code, _, told = run("list")
    assert code == cli.NO_ANSWER and "no answer" in told


def test_commands_find_the_server_of_this_machine(
    served: World, run: Run, owner: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = Settings().url
    monkeypatch.delenv("FADRM_URL")
    monkeypatch.delenv("FADRM_TOKEN")
    connection = Connection(url=url, token=owner.token)
    write_private(tmp_path / FILE, connection.model_dump_json())
    assert run("list")[0] == 0
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_tokens_are_made_listed_and_revoked(world: World, run: Run) -> None:
    code, token, aside = run("token", "create", "laptop", "--user", "mei")
    assert code == 0 and token.startswith("fadrm_") and f"Good for the server whose home is {Settings().home}" in aside
    _, told, _ = run("token", "list")
    assert "laptop" in told and "mei" in told
    token_id = next(word for word in told.split() if word.startswith("tok_"))
    [as_json, *_] = json.loads(run("token", "list", "--json")[1])
    assert (as_json["id"], as_json["user"], as_json["name"]) == (token_id, "mei", "laptop") and "token" not in as_json
    assert run("token", "revoke", token_id)[0] == 0
    assert "laptop" not in run("token", "list")[1]
    assert run("token", "revoke", token_id)[0] == cli.REFUSED
    assert run("token", "create", "x", "--user", "new", "--role", "king")[0] == 2


def test_a_login_link_is_printed(world: World, run: Run) -> None:
    code, told, _ = run("login")
    assert code == 0 and told.startswith("http://127.0.0.1:8080/login?token=fadrm_")


def test_migrating_makes_the_database(run: Run, tmp_path: Path) -> None:
    code, _, _ = run("migrate", "--home", str(tmp_path / "new"))
    assert code == 0 and (tmp_path / "new" / "fadrm.db").exists()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_doctor_names_what_is_there(world: World, run: Run) -> None:
    code, told, _ = run("doctor")
    assert code == 0, told
    for name in ("python", "torch", "devices", "redis", "database", "sqlite", "disk"):
        assert name in told


def test_the_doctor_warns_of_an_old_sqlite(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
    code, told, _ = run("doctor")
    assert code == 0 and "! sqlite" in told and "before 3.51.3" in told
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    assert "✔ sqlite" in run("doctor")[1]


def test_the_doctor_finds_a_damaged_database(world: World, run: Run, tmp_path: Path) -> None:
    world.services.database.close()
    damage(tmp_path / "fadrm.db")
    code, told, _ = run("doctor")
    assert code == cli.FAILED and "✘ database" in told and "fadrm.db.*.bak" in told


def test_a_worker_without_redis_is_told_what_to_do(run: Run) -> None:
    code, _, told = run("worker")
    assert code == cli.FAILED and "fadrm up" in told


@pytest.mark.parametrize("command", ["up", "serve"])
def test_other_machines_are_let_in_only_by_name(run: Run, command: str) -> None:
    code, _, told = run(command, "--host", "0.0.0.0")
    assert code == cli.FAILED and "FADRM_HOSTS" in told and "TLS" in told


def test_an_archive_is_uploaded_and_its_source_is_printed(run: Run, served: World, tmp_path: Path) -> None:
    (tmp_path / "insects.zip").write_bytes(archive())
    code, told, aside = run("upload", str(tmp_path / "insects.zip"))
    assert code == 0 and aside.startswith("insects: 2 classes, 6 images")
    assert json.loads(told).keys() == {"source", "id"} and json.loads(told)["source"] == "upload"
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    code, _, aside = run("upload", str(tmp_path / "broken.zip"))
    assert code == 3 and "cannot be read" in aside
    (tmp_path / "flowers").mkdir()
    code, _, aside = run("upload", str(tmp_path / "flowers"))
    assert code == 3 and "is a folder" in aside and "python -m zipfile -c" in aside


def test_weights_are_uploaded_shown_listed_and_removed(run: Run, served: World, tmp_path: Path) -> None:
    path = tmp_path / "insects.safetensors"
    path.write_bytes(weights())
    code, told, aside = run("teachers", "upload", str(path), "--network", "convnet3_w32", "--visibility", "all")
    assert code == 0 and json.loads(told)["network"] == "convnet3_w32"
    assert aside.startswith("insects: convnet3_w32 for 10 classes and images below 128 px")
    code, told, _ = run("teachers", "sent", "--json")
    [one] = json.loads(told)
    assert one["visibility"] == "all" and one["title"] in run("teachers", "sent")[1]
    code, _, aside = run("teachers", "upload", str(path), "--network", "resnet18")
    assert code == 3 and "are of convnet3_w32, and not of resnet18" in aside
    assert run("teachers", "remove", one["id"])[0] == 0 and json.loads(run("teachers", "sent", "--json")[1]) == []
