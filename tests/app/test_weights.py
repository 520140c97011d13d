"""Weights of teachers that people send: from the request to a job that teaches with them, and what is refused on the way."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.torch import save

from app.main import create_app
from app.models import Upload, utc_now
from app.storage import janitor, usage
from engine.events import Event, Failed, Metric
from engine.models import build
from engine.plan import Step as PlanStep
from engine.plan import StepKind
from engine.run import perform
from engine.spec import JobSpec, Teacher
from fadrm import Client
from fadrm.errors import Refused
from tests.app.archives import archive
from tests.app.tensor_files import BYTES, SMALL, file_of, header, shapes, weights
from tests.app.test_arrivals import begin, send
from tests.app.test_client import InProcess
from tests.app.world import SPEC, Person, World, files_of, spec_body

URL = "/api/v1/weights"


def post(client: TestClient, data: bytes, network: str = SMALL, **more: Any) -> Any:
    headers = BYTES | more.pop("headers", {})
    return client.post(URL, params={"network": network} | more, content=data, headers=headers)


def taught_by(upload_id: str, network: str = SMALL, **more: Any) -> dict[str, Any]:
    """A request for a job."""
    return {"spec": spec_body(teachers=[{"network": network, "upload": upload_id}], **more)}


def left(world: World) -> set[str]:
    return files_of(world.services.store.uploads) | {path.name for path in world.services.store.uploads.glob("*")}


def performed(world: World, job_id: str) -> list[list[Event]]:
    """What the engine tells of a job's first two steps: reading the images, and the teacher. What is whole is published."""
    store, found = world.services.store, []
    for step in world.steps(job_id)[:2]:
        out = store.attempt(step.key, 0)
        shown = {name: getattr(step, name) for name in PlanStep.model_fields}
        found.append(list(perform(PlanStep(**shown), store, out=out, device=torch.device("cpu"))))
        if not isinstance(found[-1][-1], Failed):
            store.publish(step.key, out)
    return found


def test_weights_are_taken_listed_and_the_same_bytes_are_the_same(client: TestClient, world: World) -> None:
    data = weights(classes=7)
    answer = post(client, data, title="Insects, 50 epochs")
    made = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == f"{URL}/{made['id']}"
    assert made["id"] == hashlib.sha256(data).hexdigest() and made["teacher"] == {
        "network": SMALL,
        "upload": made["id"],
    }
    assert (made["network"], made["classes"], made["sides"], made["dtypes"]) == (SMALL, 7, "below 128 px", ["F32"])
    assert client.get(URL).json() == [made] and client.get(f"{URL}/{made['id']}").json() == made
    assert left(world) == {made["id"], f"{made['id']}/weights.safetensors"}
    again = post(client, data, headers=world.person("other").headers)
    own = {"title": "Uploaded weights", "owner": "other", "held": True}
    assert again.status_code == 200 and again.json() == made | own and world.count(Upload) == 1
    assert client.get(f"/api/v1/datasets/{made['id']}").status_code == 404


@pytest.mark.parametrize("network", ["resnet18_w16", "alexnet", "convnet5"])
def test_weights_under_other_names_and_in_half_precision_are_recognised(client: TestClient, network: str) -> None:
    given = {
        "module." + name.replace("linear", "fc").replace("shortcut", "downsample"): shape
        for name, shape in shapes(network, classes=3).items()
        if not name.endswith("num_batches_tracked")
    }
    made = post(client, file_of(header(given, "F16")), network)
    assert made.status_code == 201 and made.json()["classes"] == 3 and made.json()["dtypes"] == ["F16"], made.json()


def test_a_job_teaches_with_them(client: TestClient, world: World) -> None:
    model = build(SMALL, num_classes=10, resolution=8, seed=3)
    made = post(client, save(model.state_dict())).json()
    job = client.post("/api/v1/jobs", json=taught_by(made["id"])).json()
    [row] = [step for step in world.steps(job["id"]) if step.kind == StepKind.TEACH]
    assert row.title == f"Import teacher {SMALL}" and row.params["weights_sha256"] == made["id"]
    prepared, told = performed(world, job["id"])
    assert not any(isinstance(event, Failed) for event in (*prepared, *told)), told
    assert any(isinstance(event, Metric) and "teach.top1" in event.values for event in told)
    store = world.services.store
    assert store.manifest(row.key).result["weights"] == "upload"
    taken = store.step(row.key) / "weights.safetensors"
    assert taken.read_bytes() == save(dict(model.state_dict()))


def test_weights_that_are_gone_fail_their_step_in_words(client: TestClient, world: World) -> None:
    made = post(client, weights()).json()
    job = client.post("/api/v1/jobs", json=taught_by(made["id"])).json()
    (world.services.store.uploads / made["id"] / "weights.safetensors").unlink()
    _, told = performed(world, job["id"])
    assert isinstance(told[-1], Failed) and "are not here any more" in told[-1].error.message


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"network": "convnet3"}, "/spec/teachers/0/network", "These weights are of convnet3_w32"),
        ({"upload": "0" * 64}, "/spec/teachers/0/upload", "There is no upload of weights 000"),
        ({"upload": "../etc"}, "/spec/teachers/0/upload", "upload"),
        ({"weights": "torchvision"}, "/spec/teachers/0", "both say where weights come from"),
        ({"upload": None, "weights": "upload"}, "/spec/teachers/0", "names none"),
    ],
)
def test_a_spec_that_names_weights_wrongly_is_told_where(
    client: TestClient, changes: dict[str, Any], pointer: str, words: str
) -> None:
    made = post(client, weights()).json()
    body = {"spec": spec_body(teachers=[made["teacher"] | changes])}
    for path in ("/api/v1/jobs/plan", "/api/v1/jobs"):
        answer = client.post(path, json=body)
        assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == pointer, answer.json()
        assert words in answer.json()["errors"][0]["detail"]


def test_weights_for_other_classes_or_sizes_are_refused_with_both_figures(client: TestClient) -> None:
    seven, large = (
        post(client, weights(classes=7)).json(),
        post(client, weights("alexnet", resolution=224), "alexnet"),
    )
    refused = client.post("/api/v1/jobs/plan", json=taught_by(seven["id"])).json()
    assert "know 7 classes, and the data set has 10" in refused["detail"] and refused["hint"]
    assert large.json()["sides"] == "from 128 px"
    evaluation = SPEC.evaluation.model_copy(update={"baselines": ()}).model_dump(mode="json")
    more = {"method": {"method": "random"}, "evaluation": evaluation}
    refused = client.post("/api/v1/jobs/plan", json=taught_by(large.json()["id"], "alexnet", **more)).json()
    assert "are for images from 128 px, and these are 8 px" in refused["detail"]


def test_specs_that_do_without_an_upload_read_as_they_always_did() -> None:
    assert "upload" not in Teacher().model_dump() and "upload" not in JobSpec().model_dump(mode="json")["teachers"][0]
    given = Teacher(upload="0" * 64)
    assert given.weights == "upload" and Teacher.model_validate(given.model_dump(mode="json")) == given


def test_they_stay_while_a_job_needs_them_and_go_when_none_did_for_long(client: TestClient, world: World) -> None:
    used, unused = (post(client, weights(classes=classes)).json()["id"] for classes in (10, 3))
    job = client.post("/api/v1/jobs", json=taught_by(used)).json()
    assert client.delete(f"{URL}/{used}", headers=world.person("other").headers).status_code == 404
    refused = client.delete(f"{URL}/{used}")
    assert refused.status_code == 409 and job["id"] in refused.json()["detail"]
    settings = world.services.settings.model_copy(update={"keep_uploads_days": 1.0})
    services = replace(world.services, settings=settings)
    gone = janitor.clean(services, now=utc_now() + timedelta(days=3))
    assert [item.name for item in gone if item.kind == "uploads"] == [unused]
    client.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert client.delete(f"{URL}/{used}").status_code == 204 and not left(world)
    assert client.get(f"{URL}/{used}").status_code == 404


def test_who_may_not_see_them_neither_plans_nor_teaches_with_them(client: TestClient, world: World) -> None:
    other, body = world.person("other"), None
    made = post(client, weights()).json()
    body = taught_by(made["id"])
    for path in ("/api/v1/jobs/plan", "/api/v1/jobs"):
        refused = client.post(path, json=body, headers=other.headers)
        assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/spec/teachers/0/upload"
    assert client.get(URL, headers=other.headers).json() == []
    assert client.patch(f"{URL}/{made['id']}", json={"visibility": "all"}).json()["visibility"] == "all"
    assert client.post("/api/v1/jobs", json=body, headers=other.headers).status_code == 201
    assert client.patch(f"{URL}/{made['id']}", json={"visibility": "team"}, headers=other.headers).status_code == 403


def test_they_count_in_the_quota_and_the_storage(world: World, owner: Person) -> None:
    data = weights()
    limits = {"max_upload_bytes_per_user": len(data) + 10, "max_weights_bytes": len(data) + 5}
    services = replace(world.services, settings=world.services.settings.model_copy(update=limits))
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        assert post(client, weights("resnet18_w16"), "resnet18_w16").status_code == 413
        assert post(client, data).status_code == 201
        refused = post(client, weights(classes=3))
        assert refused.status_code == 429 and f"take {len(data):,} bytes" in refused.json()["detail"]
    found = usage.usage(services, owner.user).kinds
    assert [(one.kind, one.count, one.size_bytes) for one in found] == [("weights", 1, len(data))]


def pth() -> bytes:
    made = io.BytesIO()
    torch.save(build(SMALL, num_classes=10, resolution=8).state_dict(), made)
    return made.getvalue()


def changed(name: str, **parts: Any) -> bytes:
    """Weights whose header says something else of one tensor."""
    head = header(shapes())
    return file_of(head | {name: head[name] | parts}, head["linear.bias"]["data_offsets"][1])


WHOLE = header(shapes())
FIRST = next(iter(WHOLE))
SIZE = max(one["data_offsets"][1] for one in WHOLE.values())
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "what torch.save writes": (pth, "torch.save writes"),
    "what it wrote of old": (lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch.save writes"),
    "nothing": (lambda: b"", "no safetensors"),
    "a length alone": (lambda: (2).to_bytes(8, "little"), "no safetensors"),
    "a zip": (archive, "torch.save writes"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "no safetensors"),
    "a bloated header": (lambda: file_of(WHOLE | {"__metadata__": {"a": "x" * 1_000_001}}, SIZE), "limit is 1,000,000"),
    "a header of 2 to the 63": (lambda: file_of(WHOLE, SIZE, length=2**63), "limit is 1,000,000"),
    "a header that goes on": (lambda: file_of(WHOLE, 10, length=900_000), "within its header"),
    "cut short": (lambda: weights()[:-1], "it was cut off"),
    "cut in the header": (lambda: weights()[:100], "within its header"),
    "more at the end": (lambda: weights() + b"PK", "2 bytes follow the last tensor"),
    "a header that is no JSON": (lambda: file_of(b"{no", 0), "cannot be read"),
    "a header in no UTF-8": (lambda: file_of(b'{"\xff\xfe": 1}', 0), "cannot be read"),
    "a header without end": (lambda: file_of(b'{"a":' + b"[" * 200_000, 0), "cannot be read"),
    "a number without end": (lambda: file_of(b'{"a":' + b"9" * 100_000 + b"}", 0), "cannot be read"),
    "a name twice": (lambda: file_of(b'{"a": 1, "a": 2}', 0), "twice"),
    "no tensor": (lambda: file_of({}, 0), "holds no tensor"),
    "metadata alone": (lambda: file_of({"__metadata__": {"format": "pt"}}, 0), "holds no tensor"),
    "many tensors": (
        lambda: file_of({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(10_001)}, 0),
        "10,001 tensors",
    ),
    "a tensor that is a word": (lambda: file_of({"a": "b"}, 0), "type, shape and place"),
    "a tensor with more to say": (
        lambda: file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "call": "os.system"}}, 4),
        "type, shape and place",
    ),
    "another type": (lambda: changed(FIRST, dtype="U8"), "is of type U8"),
    "a type that is a list": (lambda: changed(FIRST, dtype=["F32"]), "is of type"),
    "a negative side": (lambda: changed(FIRST, shape=[-1, 3]), "no shape or place"),
    "a side that is true": (lambda: changed(FIRST, shape=[True]), "no shape or place"),
    "a broken side": (lambda: changed(FIRST, shape=[1.5]), "no shape or place"),
    "more dimensions than are": (lambda: changed(FIRST, shape=[1] * 9), "no shape or place"),
    "a place before the file": (lambda: changed(FIRST, data_offsets=[-4, 0]), "no shape or place"),
    "a place far behind the file": (lambda: changed(FIRST, data_offsets=[2**60, 2**60 + 4]), "no shape or place"),
    "a size that is not the shape's": (lambda: changed(FIRST, shape=[1, 2]), "and its shape needs 8"),
    "tensors that overlap": (
        lambda: file_of(WHOLE | {"linear.bias": WHOLE["linear.bias"] | {"data_offsets": [0, 40]}}, SIZE), "overlaps"),
    "a gap between tensors": (
        lambda: file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, 8), "does not begin where"),
    "a name that is not printed": (lambda: file_of(header({"a\u202eb": (1,)})), "no name of a tensor"),
    "a name without end": (lambda: file_of(header({"a" * 301: (1,)})), "no name of a tensor"),
    "a tensor too few": (
        lambda: file_of(header({name: shape for name, shape in shapes().items() if name != "linear.bias"})),
        "it lacks linear.bias",
    ),
    "a tensor too many": (lambda: file_of(header(shapes() | {"mask": (2,)})), "it has mask that the network has not"),
    "another shape": (lambda: file_of(header(shapes() | {"linear.bias": (9,)})), "linear.bias is 9 and not 10"),
    "another network": (lambda: weights("convnet3"), "but of convnet3 for 10 classes"),
    "no class": (lambda: weights(classes=0), "has no class"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_broken_or_hostile_is_refused_in_words_and_leaves_nothing(
    client: TestClient, world: World, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, told = HOSTILE[name]
    caplog.set_level("INFO", "app.confined")
    answer = post(client, make())
    problem = answer.json()
    assert answer.status_code == 422 and told in problem["detail"] and problem["hint"], problem
    assert all(vars(one)["peak_bytes"] < 100 * 2**20 for one in caplog.records if one.name == "app.confined")
    assert not left(world) and world.count(Upload) == 0


def test_a_header_that_begins_like_another_file_is_read_all_the_same(client: TestClient) -> None:
    """640 bytes of header are written as 0x80 0x02, with which files of torch.save began once."""
    head = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(640)
    assert "does not hold the weights" in post(client, file_of(head, 4)).json()["detail"]


@pytest.mark.parametrize(("network", "hint"), [("resnet17", "resnet18"), ("../x", "Choose one of")])
def test_a_network_that_is_not_known_is_refused_before_a_byte_is_taken(
    client: TestClient, network: str, hint: str
) -> None:
    answer = post(client, weights(), network)
    assert answer.status_code == 422 and hint in answer.json()["hint"]
    assert begin(client, 10, kind="weights", network=network).status_code == 422
    assert begin(client, 10, kind="pictures").status_code == 422


def test_bytes_are_weights_of_one_network_whoever_says_otherwise(client: TestClient) -> None:
    post(client, weights())
    refused = post(client, weights(), "convnet3")
    assert refused.status_code == 422 and "are of convnet3_w32, and not of convnet3" in refused.json()["detail"]


def test_bytes_that_are_two_things_are_only_the_first(client: TestClient, world: World) -> None:
    """A zip can lie within a tensor."""
    zipped = archive()
    given = shapes() | {"linear.bias": (10,)}
    head = header(given)
    data = bytearray(file_of(head))
    data[-len(zipped) :] = zipped
    assert zipfile.is_zipfile(io.BytesIO(bytes(data)))
    assert post(client, bytes(data)).status_code == 201
    refused = client.post("/api/v1/datasets", content=bytes(data), headers={"Content-Type": "application/zip"})
    assert refused.status_code == 422 and "sent before, as weights" in refused.json()["detail"]


def test_they_come_in_pieces_and_what_is_refused_says_why(client: TestClient, world: World) -> None:
    for data, status in ((weights(), 200), (weights()[:-5], 422)):
        made = begin(client, len(data), kind="weights", network=SMALL)
        url = made.headers["location"]
        assert (made.json()["kind"], made.json()["network"]) == ("weights", SMALL)
        send(client, url, data[:1000], 0)
        send(client, url, data[1000:], 1000)
        finished = client.post(f"{url}/finish")
        assert (
            finished.status_code == status and client.post(f"{url}/finish").json()["detail" if status > 400 else "id"]
        )
    assert world.count(Upload) == 1


def test_the_client_sends_them(app: FastAPI, owner: Person, tmp_path: Path) -> None:
    path = tmp_path / "insects.safetensors"
    path.write_bytes(weights())
    with (
        TestClient(app, follow_redirects=False) as inner,
        Client("http://testserver", owner.token, transport=InProcess(inner)) as remote,
    ):
        made = remote.upload_teacher(path, SMALL)
        assert made.title == "insects" and remote.weights() == [made] and made.teacher["upload"] == made.id
        path.write_bytes(pth())
        with pytest.raises(Refused) as refused:
            remote.upload_teacher(path, SMALL)
        assert "python -m engine.convert" in refused.value.hint
