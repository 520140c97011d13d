"""Jobs and sweeps as values: what one does with them, and how a notebook shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fadrm import Client, ClientError
from tests.app.test_client import remote  # noqa: F401 - a fixture
from tests.app.test_sweeps import ALPHA, body
from tests.app.world import Person, World, chain, spec_body

SPEC = spec_body()


def test_the_package_imports_nothing_of_the_server() -> None:
    program = "import sys, fadrm; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )
    assert "fadrm" in loaded
    assert not loaded & {"app", "engine", "worker", "torch", "datasets", "fastapi", "sqlalchemy", "celery"}


def test_a_job_is_made_of_a_dict_a_file_or_a_preset(remote: Client, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "job.yaml"
    file.write_text("preset: demo\noverrides: {ipc: 1}\n")
    made = [
        remote.submit(SPEC),
        remote.submit({"spec": SPEC, "name": "named"}),
        remote.submit(file, name="of a file"),
        remote.submit(preset="demo", overrides={"ipc": 2}),
    ]
    assert [job.ipc for job in made] == [1, 1, 1, 2]
    assert [job.name for job in made[1:3]] == ["named", "of a file"]
    assert made[3].spec()["ipc"] == 2 and remote.plan(preset="demo").steps


def test_what_is_no_request_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1") as nobody:
        with pytest.raises(ClientError, match="a spec or of a preset"):
            nobody.submit()
        with pytest.raises(ClientError, match="it is a sweep"):
            nobody.submit({"spec": SPEC, "axes": []})
        with pytest.raises(ClientError, match="`spec` or `preset` is missing; it has `base`, `axes`") as wrong:
            nobody.submit_sweep({"base": SPEC, "axes": []})
        assert "A sweep has `spec`" in wrong.value.hint
        with pytest.raises(ClientError, match="cannot be read"):
            nobody.submit(tmp_path / "nothing.yaml")


def test_a_job_does_what_its_client_does(remote: Client, world: World, owner: Person, tmp_path: Path) -> None:  # noqa: F811
    job = remote.submit(SPEC)
    assert job.pause().sentence.startswith("Paused") and job.resume().state == "queued"
    world.work()
    ended = job.wait(progress=False)
    assert ended.is_over and not job.is_over and job.refresh().state == "succeeded"
    assert [event.seq for event in job.events()] == list(range(1, ended.version + 1))
    assert job.results().rows[0].mean == 90.0
    assert job.download(tmp_path).read_bytes() == bytes(range(256)) * 40
    with pytest.raises(ClientError, match="no zip of 7 images per class"):
        job.download(tmp_path, ipc=7)


def test_a_log_is_followed_to_the_end(remote: Client, world: World, owner: Person) -> None:  # noqa: F811
    job = world.submit(owner, chain("log", 3))
    world.work()
    lines = [line.message for line in remote.log(job.id)]
    assert lines == [line.message for line in remote.log(job.id, follow=True)]
    assert "All is well" in lines and lines[-1] == "Job succeeded."


def test_jobs_are_compared_by_what_differs(remote: Client, world: World) -> None:  # noqa: F811
    jobs = [remote.submit(spec_body(seed=seed)) for seed in (1, 2)]
    world.work()
    made = remote.compare(*(job.id for job in jobs))
    assert [(one.pointer, one.values) for one in made.differences] == [("/seed", [1, 2])]
    assert [row.mean for score in made.scores for row in score.rows if row] == [90.0] * 2 * len(made.scores)
    assert "/seed" in made._repr_html_()
    with pytest.raises(ClientError, match="nothing to be compared"):
        remote.compare(jobs[0].id)


def test_a_notebook_shows_state_images_and_score_card(remote: Client, world: World) -> None:  # noqa: F811
    job = remote.submit(SPEC, name="<b>pets</b>")
    assert "&lt;b&gt;pets" in job._repr_html_() and "<img" not in job._repr_html_()
    world.work()
    shown = job.refresh()._repr_html_()
    assert "data:image/png" in shown and "Random real images" in shown and "90.0 ± 0.0" in shown
    assert "<script" not in shown


def test_a_sweep_shows_its_table(remote: Client, world: World) -> None:  # noqa: F811
    sweep = remote.submit_sweep(body(ALPHA))
    world.work()
    assert sweep.wait().is_over and len(sweep.table().rows) == 2
    assert "90.0" in sweep.refresh()._repr_html_() and "<table>" in remote.sweeps().data[0]._repr_html_()


def test_what_there_is_to_choose_from_is_listed(remote: Client, world: World) -> None:  # noqa: F811
    world.worker_online()
    assert "demo" in {preset.name for preset in remote.presets()}
    assert {"source": "digits"}.items() <= next(iter(remote.datasets())).dataset.items() or remote.datasets()
    assert [worker.id for worker in remote.workers()] == ["test:cpu:0"]
