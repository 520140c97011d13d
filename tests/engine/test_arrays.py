"""Arrays on the disk: the same as NumPy's, without NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine import arrays


@pytest.mark.parametrize("dtype", list(arrays.DESCRIPTIONS))
def test_numpy_reads_what_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(dtype)
    arrays.write(tmp_path / "a.npy", values)
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), values.numpy())


@pytest.mark.parametrize("dtype", list(arrays.DESCRIPTIONS))
def test_what_numpy_writes_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(6).reshape(3, 2).to(dtype)
    np.save(tmp_path / "a.npy", values.numpy())
    assert torch.equal(arrays.read(tmp_path / "a.npy"), values)


def test_writing_to_a_created_array_writes_the_file(tmp_path: Path) -> None:
    created = arrays.create(tmp_path / "a.npy", (4, 2), torch.float16)
    assert not arrays.read(tmp_path / "a.npy").any()
    created[1:3] = 5
    assert arrays.read(tmp_path / "a.npy").sum() == 20


def test_writing_to_a_read_array_leaves_the_file_alone(tmp_path: Path) -> None:
    arrays.write(tmp_path / "a.npy", torch.ones(3))
    arrays.read(tmp_path / "a.npy").zero_()
    assert arrays.read(tmp_path / "a.npy").sum() == 3


def test_a_writable_array_can_be_gone_on_with(tmp_path: Path) -> None:
    arrays.write(tmp_path / "a.npy", torch.ones(3))
    arrays.read(tmp_path / "a.npy", writable=True)[0] = 7
    assert arrays.read(tmp_path / "a.npy").tolist() == [7, 1, 1]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_odd_shapes_are_kept(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays.write(tmp_path / "a.npy", torch.zeros(shape))
    assert arrays.read(tmp_path / "a.npy").shape == shape
    assert np.load(tmp_path / "a.npy").shape == shape


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    arrays.write(tmp_path / "a.npy", torch.zeros(100))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-1])
    with pytest.raises(ValueError, match="shorter than its header says"):
        arrays.read(tmp_path / "a.npy")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"PK\x03\x04 not an array at all")
    with pytest.raises(ValueError, match=r"no \.npy file"):
        arrays.read(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.asfortranarray(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="order or type"):
        arrays.read(tmp_path / "b.npy")
