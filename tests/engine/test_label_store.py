"""Labels come back as they were kept, and what is left out is left out in the way that costs least."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine import arrays
from engine.label_store import LabelStore, kept, shapes, turn, whole
from engine.labels import draw_plan

CLASSES = 20


def _logits(count: int = 12) -> Tensor:
    return (4 * torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(0))).half()


def _divergence(told: Tensor, truth: Tensor, temperature: float = 20.0) -> float:
    own, target = (F.log_softmax(values.float() / temperature, 1) for values in (told, truth))
    return float(F.kl_div(own, target, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("top_k", [None, CLASSES, CLASSES + 1])
def test_all_classes_kept_are_the_labels_themselves(top_k: int | None) -> None:
    logits = _logits()
    assert torch.equal(whole(kept(logits, top_k), CLASSES), logits)


def test_the_largest_are_kept_as_they_are_and_the_rest_share_their_mean() -> None:
    logits = _logits()
    told = whole(kept(logits, 3), CLASSES)
    values, classes = logits.topk(3)
    assert torch.equal(told.gather(1, classes), values)
    rest = torch.ones_like(logits, dtype=torch.bool).scatter_(1, classes, False)
    expected = logits.float()[rest].view(12, -1).mean(1)
    torch.testing.assert_close(told.float()[rest].view(12, -1), expected[:, None].expand(-1, 17), atol=2e-3, rtol=1e-3)


def test_sharing_what_is_left_is_closer_than_dropping_it() -> None:
    logits = _logits()
    told = whole(kept(logits, 3), CLASSES)
    dropped = torch.full_like(logits, -200).scatter_(1, logits.topk(3).indices, logits.topk(3).values)
    assert _divergence(told, logits) < 0.1 * _divergence(dropped, logits)


@pytest.mark.parametrize("top_k", [None, 3])
def test_shapes_are_those_of_what_is_kept(top_k: int | None) -> None:
    found = {name: (tuple(values.shape), values.dtype) for name, values in kept(_logits(), top_k).items()}
    assert found == shapes(12, CLASSES, top_k)


def test_an_epoch_of_the_pool_serves_itself() -> None:
    now = turn(2, pool=3, images=23, batch_size=5, seed=0)
    assert now.epoch == 2 and torch.equal(now.batches, torch.arange(5))


def test_later_epochs_take_whole_batches_of_the_pool_in_another_order() -> None:
    later = [turn(epoch, pool=3, images=53, batch_size=5, seed=0) for epoch in (3, 6)]
    assert [now.epoch for now in later] == [0, 0]
    for now in later:
        assert sorted(now.batches.tolist()) == list(range(11)) and now.batches[-1] == 10  # the short one stays last
    assert not torch.equal(later[0].batches, later[1].batches)


def _stored(folder: Path, *, epochs: int, top_k: int | None = None) -> tuple[LabelStore, Tensor]:
    logits = torch.stack([_logits(23).roll(epoch, 0) for epoch in range(epochs)])
    plans = [draw_plan(23, batch_size=5, side=8, seed=0, epoch=epoch) for epoch in range(epochs)]
    for name in plans[0].tensors():
        arrays.write(folder / f"{name}.npy", torch.stack([plan.tensors()[name] for plan in plans]))
    for name in kept(logits[0], top_k):
        arrays.write(folder / f"{name}.npy", torch.stack([kept(own, top_k)[name] for own in logits]))
    return LabelStore.open(folder, classes=CLASSES, batch_size=5, seed=0), logits


def test_what_is_shown_again_keeps_its_labels_and_its_batch_mates(tmp_path: Path) -> None:
    store, logits = _stored(tmp_path, epochs=2)
    first, _ = store.epoch(1)
    again, labels = store.epoch(3)
    mates = {tuple(first.order[batch].tolist()): index for index, batch in enumerate(first.batches)}
    for index, batch in enumerate(again.batches):
        source = mates[tuple(again.order[batch].tolist())]
        assert torch.equal(again.boxes[batch], first.boxes[first.batches[source]])
        assert torch.equal(again.mix_boxes[index], first.mix_boxes[source])
        assert torch.equal(labels[batch], logits[1][first.batches[source]])


def test_a_store_of_the_largest_reads_as_full_labels(tmp_path: Path) -> None:
    store, logits = _stored(tmp_path, epochs=1, top_k=4)
    _, labels = store.epoch(0)
    assert labels.shape == (23, CLASSES) and torch.equal(labels.argmax(1), logits[0].argmax(1))
