"""Checkpoints: the newest whole one wins, whatever happened to the files."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine import arrays
from engine.checkpoint import Checkpoints, optimizer_tensors, restore_optimizer, taken_from, under


def _saved(folder: Path, *ranks: int, attempt: int = 1) -> Checkpoints:
    checkpoints = Checkpoints(folder=folder, attempt=attempt)
    for rank in ranks:
        checkpoints.save(rank=rank, tensors={"x": torch.full((3,), float(rank))}, facts={"rank": rank})
    return checkpoints


def _latest_rank(checkpoints: Checkpoints) -> int | None:
    found = checkpoints.latest()
    if found is None:
        return None
    assert found.facts == {"rank": found.rank}
    assert torch.equal(found.tensors["x"], torch.full((3,), float(found.rank)))
    return found.rank


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert Checkpoints(folder=tmp_path).latest() is None


def test_the_newest_is_found_and_two_are_kept(tmp_path: Path) -> None:
    assert _latest_rank(_saved(tmp_path, 5, 100, 1000)) == 1000
    assert len(list(tmp_path.iterdir())) == 4


def test_the_most_work_wins_over_the_newest_attempt(tmp_path: Path) -> None:
    _saved(tmp_path, 900, attempt=1)
    assert _latest_rank(_saved(tmp_path, 50, attempt=2)) == 900


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "head truncated", "head empty"])
def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoints = _saved(tmp_path, 1, 2)
    tensors, head = tmp_path / "000001-000000000002.safetensors", tmp_path / "000001-000000000002.json"
    data = tensors.read_bytes()
    match damage:
        case "truncated":
            tensors.write_bytes(data[:-3])
        case "flipped":
            tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "gone":
            tensors.unlink()
        case "head truncated":
            head.write_bytes(head.read_bytes()[:20])
        case "head empty":
            head.write_bytes(b"")
    assert _latest_rank(checkpoints) == 1


def test_tensors_without_their_head_are_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = _saved(tmp_path, 1, 2)
    (tmp_path / "000001-000000000002.json").unlink()
    assert _latest_rank(checkpoints) == 1


def test_one_is_due_after_its_time(tmp_path: Path) -> None:
    assert Checkpoints(folder=tmp_path, every_s=0).is_due()
    assert not Checkpoints(folder=tmp_path, every_s=60).is_due()


def test_plain_values_come_back_exactly(tmp_path: Path) -> None:
    facts = {"loss": 0.1 + 0.2, "missing": float("nan"), "list": [1e-300, 2.5]}
    Checkpoints(folder=tmp_path).save(rank=1, tensors={}, facts=facts)
    found = Checkpoints(folder=tmp_path).latest()
    assert found is not None and str(found.facts) == str(facts)


def test_states_share_a_checkpoint_by_prefix() -> None:
    first, second = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    both = {**under("first", first), **under("second", second)}
    assert taken_from("second", both) == second


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimiser_goes_on_from_its_memory(kind: type[torch.optim.Optimizer]) -> None:
    def trained(resume_at: int | None) -> list[Tensor]:
        layer = nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        options = {"lr": 0.1} if kind is torch.optim.AdamW else {"lr": 0.1, "momentum": 0.9}
        optimizer = kind(layer.parameters(), **options)  # type: ignore[arg-type]
        for step in range(6):
            if step == resume_at:
                memory = optimizer_tensors(optimizer)
                optimizer = kind(layer.parameters(), **options)  # type: ignore[arg-type]
                restore_optimizer(optimizer, memory)
            optimizer.zero_grad()
            layer(torch.full((1, 3), step / 6)).square().sum().backward()
            optimizer.step()
        return [parameter.detach().clone() for parameter in layer.parameters()]

    for whole, resumed in zip(trained(None), trained(3), strict=True):
        assert torch.equal(whole, resumed)


def _large(checkpoints: Checkpoints, *, exact: bool = False) -> Path:
    return checkpoints.large_files(checkpoints.latest(), exact=exact) / "x.npy"


def test_an_attempt_without_a_checkpoint_begins_large_files_of_its_own(tmp_path: Path) -> None:
    lost, next_one = Checkpoints(folder=tmp_path, attempt=1), Checkpoints(folder=tmp_path, attempt=2)
    kept = _large(lost)
    arrays.write(kept, torch.ones(3))
    arrays.create(_large(next_one), (3,), torch.float32)
    assert torch.equal(arrays.read(kept), torch.ones(3))


@pytest.mark.parametrize("exact", [True, False])
def test_large_files_are_gone_on_with_from_the_checkpoint_that_names_them(tmp_path: Path, exact: bool) -> None:
    lost, next_one = Checkpoints(folder=tmp_path, attempt=1), Checkpoints(folder=tmp_path, attempt=2)
    arrays.write(_large(lost), torch.ones(3))
    lost.save(rank=1, tensors={}, facts={})
    taken = _large(next_one, exact=exact)
    arrays.read(taken, writable=True)[2] = 5
    assert torch.equal(arrays.read(taken), torch.tensor([1.0, 1.0, 5.0]))


def test_who_was_given_up_writes_nothing_into_what_may_differ_between_machines(tmp_path: Path) -> None:
    lost, next_one = Checkpoints(folder=tmp_path, attempt=1), Checkpoints(folder=tmp_path, attempt=2)
    array = arrays.create(_large(lost), (3,), torch.float32)
    lost.save(rank=1, tensors={}, facts={})
    taken = _large(next_one)
    array[:] = 7
    assert torch.equal(arrays.read(taken), torch.zeros(3))


def test_large_files_that_no_checkpoint_names_are_removed_and_those_that_one_names_stay(tmp_path: Path) -> None:
    first, second = (Checkpoints(folder=tmp_path, attempt=attempt) for attempt in (1, 2))
    arrays.write(_large(first), torch.ones(3))
    first.save(rank=1, tensors={}, facts={})
    arrays.write(_large(second), torch.ones(3))
    second.save(rank=2, tensors={}, facts={})
    assert len(list(tmp_path.glob("files-*"))) == 2  # both of the newest two
    second.save(rank=3, tensors={}, facts={})
    assert len(list(tmp_path.glob("files-*"))) == 1


def test_a_checkpoint_whose_large_files_are_gone_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path, attempt=1)
    checkpoints.save(rank=1, tensors={}, facts={})
    file = _large(checkpoints)
    arrays.write(file, torch.ones(3))
    checkpoints.save(rank=2, tensors={}, facts={})
    shutil.rmtree(file.parent)
    found = Checkpoints(folder=tmp_path, attempt=2).latest()
    assert found is not None and found.rank == 1
