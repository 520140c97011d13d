"""Contact sheets: tiles where their names say, and small enough to look at."""

from __future__ import annotations

import pytest
import torch

from engine.png import decode
from engine.sheets import GAP, contact_sheet, sheet_columns


def test_a_contact_sheet_has_its_tiles_in_row_order_on_white() -> None:
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    sheet = decode(contact_sheet(images, columns=3))
    assert sheet.shape == (3, 2 * 8 + GAP, 3 * 8 + 2 * GAP)
    assert torch.equal(sheet[:, :8, 8 + GAP : 16 + GAP], images[1])
    assert torch.equal(sheet[:, 8 + GAP :, :8], images[3])
    assert (sheet[:, 8 + GAP :, -8:] == 255).all()  # no sixth image


def test_large_images_are_shown_smaller() -> None:
    sheet = decode(contact_sheet(torch.full((2, 3, 224, 224), 90, dtype=torch.uint8), columns=2))
    assert sheet.shape == (3, 96, 2 * 96 + GAP)
    assert (sheet[:, :, :96] == 90).all()


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (7, 7), (10, 10), (50, 10)])
def test_a_row_has_up_to_ten_tiles(count: int, columns: int) -> None:
    assert sheet_columns(count) == columns
