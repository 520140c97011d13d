"""Weights that users bring: what fits is taken under any of its names, what does not is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine import convert, shapes, weights
from engine.errors import WeightsInvalid
from engine.launch import EXIT_FAILED
from engine.models import build
from engine.networks import NETWORKS

SMALL = "convnet3_w32"


def state_of(network: str, *, classes: int = 10, resolution: int = 32) -> dict[str, Tensor]:
    return build(network, num_classes=classes, resolution=resolution, seed=1).state_dict()


def filled(state: dict[str, Tensor], *, network: str = SMALL, classes: int = 10, resolution: int = 32) -> nn.Module:
    return weights.filled(network, state, num_classes=classes, resolution=resolution, source="teacher.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_come_back_out_of_a_file_as_they_were(tmp_path: Path) -> None:
    state = state_of(SMALL)
    save_file(state, tmp_path / "teacher.safetensors")
    model = filled(weights.read(tmp_path / "teacher.safetensors"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_are_taken_under_torchvisions_names_and_in_half_precision() -> None:
    state = state_of("resnet18_w16")
    theirs = {
        "module." + name.replace("shortcut", "downsample").replace("linear", "fc"): value.half()
        if value.is_floating_point()
        else value
        for name, value in state.items()
    }
    taken = filled(theirs, network="resnet18_w16").state_dict()
    assert {value.dtype for value in taken.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(taken, state, atol=1e-3, rtol=1e-3)


def test_counters_of_batches_may_be_missing() -> None:
    state = {name: value for name, value in state_of(SMALL).items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(filled(state).state_dict()["linear.weight"], state["linear.weight"])


def _without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "words", "hint"),
    [
        (_without(state_of(SMALL), "linear.bias"), "it lacks linear.bias", "none of the networks"),
        (_without(state_of(SMALL), "linear.bias", "linear.weight"), "lacks linear.weight and 1 more", "none of the"),
        (state_of(SMALL) | {"mask": torch.zeros(1)}, "it has mask that the network has not", "none of the networks"),
        (state_of(SMALL, classes=7), "linear.weight is 7x32 and not 10x32 (and 1 more", f"is {SMALL} for 7 classes"),
        (state_of("convnet3"), "features.0.0.weight is 128x3x3x3 and not 32x3x3x3", "It is convnet3 for 10 classes"),
    ],
)
def test_weights_that_do_not_fit_are_told_by_name_with_what_they_are(
    state: dict[str, Tensor], words: str, hint: str
) -> None:
    with pytest.raises(WeightsInvalid) as caught:
        filled(state)
    assert f"teacher.safetensors does not fit {SMALL} for 10 classes and images below 128 px: " in str(caught.value)
    assert words in str(caught.value)
    assert hint in caught.value.report.hint
    assert caught.value.report.pointer == "/teachers"


def test_weights_for_large_images_are_refused_below_128_px() -> None:
    with pytest.raises(WeightsInvalid, match=r"conv1\.weight is 64x3x7x7 and not 64x3x3x3") as caught:
        filled(state_of("resnet18", resolution=224), network="resnet18")
    assert "It is resnet18 for 10 classes and images from 128 px" in caught.value.report.hint


def test_weights_that_are_not_finite_are_refused() -> None:
    state = state_of(SMALL)
    state["linear.bias"] = torch.full((10,), torch.nan)
    with pytest.raises(WeightsInvalid, match=r"not finite: in linear\.bias"):
        filled(state)


def test_a_file_that_is_missing_or_of_another_kind_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsInvalid, match="cannot be read: No such file"):
        weights.read(tmp_path / "none.safetensors")
    torch.save(state_of(SMALL), tmp_path / "teacher.safetensors")
    with pytest.raises(WeightsInvalid, match=r"is no \.safetensors file") as caught:
        weights.read(tmp_path / "teacher.safetensors")
    assert shapes.CONVERT in caught.value.report.hint


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_recognised_by_its_weights(network: str) -> None:
    facts = NETWORKS[network]
    side = max(32, facts.smallest_px)
    with torch.device("meta"):
        state = build(network, num_classes=17, resolution=side).state_dict()
    form = shapes.recognised(weights.shapes_in(state), (network,))
    assert form is not None and (form.network, form.classes, form.resolution) == (network, 17, side)


@pytest.mark.parametrize("network", ["densenet121", "alexnet", "swin_t", "mobilenet_v2"])
def test_torchvisions_weights_are_recognised_as_for_large_images(network: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(network).state_dict()
    assert str(shapes.recognised(weights.shapes_in(state))) == f"{network} for 1,000 classes and images from 128 px"


def test_a_convnet_that_has_one_form_is_told_by_its_smallest_images() -> None:
    assert (
        str(shapes.recognised(weights.shapes_in(state_of("convnet5"))))
        == "convnet5 for 10 classes and images from 32 px"
    )


def test_torchvisions_weights_come_out_of_its_cache(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = torchvision.models.shufflenet_v2_x0_5(num_classes=1000)
    file = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(theirs.state_dict(), hub / file)
    state = weights.imagenet("shufflenet_v2_x0_5")
    ours = filled(state, network="shufflenet_v2_x0_5", classes=1000, resolution=224)
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert not capsys.readouterr().out


def test_a_broken_file_in_torchvisions_cache_is_told_with_its_name(hub: Path) -> None:
    file = hub / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    file.write_bytes(b"")
    with pytest.raises(WeightsInvalid, match=r"of resnet18 are not in .*checkpoints, or broken") as caught:
        weights.imagenet("resnet18")
    assert file.name in caught.value.report.hint and str(hub) in caught.value.report.hint


def test_where_there_is_no_network_torchvisions_weights_are_told_with_where_to_put_them(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsInvalid, match="cannot be fetched from here") as caught:
        weights.imagenet("resnet18")
    assert caught.value.report.hint.startswith("Put torchvision's file resnet18-")
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("network", "resolution", "classes", "words"),
    [
        ("resnet18", 224, 1000, ""),
        ("resnet18", 224, 100, "the 1,000 classes of ImageNet, and these are 100"),
        ("resnet18", 64, 1000, "for images from 128 px, and these are 64 px"),
        ("convnet6", 224, 1000, "no weights of convnet6"),
        ("convnet3", 64, 1000, "no weights of convnet3"),
    ],
)
def test_what_torchvisions_weights_are_for_is_known_beforehand(
    network: str, resolution: int, classes: int, words: str
) -> None:
    told = NETWORKS[network].imagenet_misfit(resolution, classes)
    assert words in told and bool(words) == bool(told)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", None])
def test_weights_are_converted_out_of_every_usual_wrapper(
    tmp_path: Path, wrapper: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.pth", tmp_path / "out.safetensors"
    state = {"module." + name: value for name, value in state_of(SMALL).items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, source)
    assert convert.main([str(source), str(target), "--network", SMALL]) == 0
    assert load_file(target).keys() == state_of(SMALL).keys()
    told = capsys.readouterr().out
    assert "23 tensors, 0.02 million values" in told and "features.0.0.weight: 32x3x3x3" in told
    assert f"It is {SMALL} for 10 classes and images below 128 px." in told


def test_tensors_that_share_memory_are_converted(tmp_path: Path) -> None:
    tied = torch.zeros(4, 4)
    torch.save({"a": tied, "b": tied.t()}, tmp_path / "in.pth")
    assert convert.main([str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]) == 0
    assert load_file(tmp_path / "out.safetensors").keys() == {"a", "b"}


def test_weights_of_another_network_than_the_named_one_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(state_of("convnet3"), tmp_path / "in.pth")
    target = tmp_path / "out.safetensors"
    assert convert.main([str(tmp_path / "in.pth"), str(target), "--network", SMALL]) == EXIT_FAILED
    assert "It is convnet3 for 10 classes" in capsys.readouterr().err and not target.exists()


class Opaque:
    """Something that only running a file's own code could bring back."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Opaque(), "holds more than tensors"),
        ({"epoch": 3, "loss": 0.5}, "holds no weights but the keys 'epoch', 'loss'"),
        ([1, 2], "holds no weights but a list"),
    ],
)
def test_a_file_without_weights_is_told_with_what_to_do(
    tmp_path: Path, content: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "in.pth")
    assert convert.main([str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]) == EXIT_FAILED
    message, hint = capsys.readouterr().err.strip().splitlines()
    assert words in message and hint


def test_a_text_file_is_no_pth_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.pth").write_text("weights: none\n")
    assert convert.main([str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]) == EXIT_FAILED
    assert "torch.save did not write it" in capsys.readouterr().err


def test_the_converter_writes_nothing_that_a_server_would_not_read(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        convert.main(["in.pth", str(tmp_path / "out.pth")])
