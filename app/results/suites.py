"""The suites: which runs stand for which of the papers' tables. Each is a few sweeps, as rows of data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from app.results.figures import ABLATIONS, Ablation
from engine.presets import DEMO, PRESETS

Spec = dict[str, Any]
CIFAR10, TINY = "cifar10", "tiny-imagenet-200"  # folders of real images
TINY10, TUNE10 = "tiny10", "tune10"  # its first ten classes, and the next ten, which settings may be chosen on
FIRST_IPCS = (10, 1, 50)  # ten first: most is known of it
METHODS = ("random", "herding", "RDED", "SRe2L++", "FADRM", "FADRM+")  # as the tables list them


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One sweep of a suite."""

    name: str  # the sweep's, by which it is found again
    title: str
    data: str | None  # the folder that its images are in; None where they ship with the server
    spec: Spec
    axes: tuple[dict[str, Any], ...]
    ablation: Ablation | None = None  # of the paper's, whose values are titles of the first axis

    def body(self, data: Path) -> dict[str, Any]:
        """The request. data: the folder on the server that holds the data sets."""
        path = {} if self.data is None else {"path": str(data / self.data)}
        dataset = self.spec["dataset"] | path
        return {"name": self.name, "spec": self.spec | {"dataset": dataset}, "axes": list(self.axes)}

    @property
    def jobs(self) -> int:
        """How many it makes."""
        return prod(map(len, self.titles.values()))

    @property
    def titles(self) -> dict[str, list[str]]:
        """Axis -> titles of its values."""
        return {axis["name"]: list(_titles(axis)) for axis in self.axes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Some sweeps that answer one question."""

    name: str
    title: str
    note: str
    runs: tuple[Run, ...]


def _titles(axis: Mapping[str, Any]) -> Iterator[str]:
    from app.cells import title_of

    yield from (one["title"] for one in axis["variants"]) if "variants" in axis else map(title_of, axis["values"])


def _variants(name: str, patches: Mapping[str, Spec]) -> dict[str, Any]:
    return {"name": name, "variants": [{"title": title, "patch": patch} for title, patch in patches.items()]}


def _folder(**fields: Any) -> Spec:
    return {"source": "folder", **fields}


def _split(total: int, parts: int) -> list[int]:
    """`total` iterations in stages as equal as they can be."""
    return [total // parts + (index < total % parts) for index in range(parts)]


RDED: Spec = {"method": {"method": "rded"}, "patches": {"difficulty": "easy"}}
BY_RUNNING: Spec = {"labels": {"statistics": "running"}}
RANDOM: Spec = {"method": {"method": "random"}}
HERDING: Spec = {"method": {"method": "herding"}}


def _small(name: str, title: str, folder: Spec, data: str, first: Spec, second: Spec) -> Run:
    """What two cores bear: small networks, a quarter of the paper's iterations."""
    network, few = first["network"], {"budgets": [125] * 4}
    spec = {
        "dataset": folder,
        "ipc": 10,
        "method": {"method": "fadrm", **few},
        "teachers": [first],
        "labels": {"epochs": 1000, "batch_size": 20},
        "evaluation": {"students": [network], "runs": 3, "labels": ["soft"], "baselines": [], "every": 250},
        "precision": "bf16",
        "resources": {"ipcs_per_step": 5},
    }
    lengths = {10: (1000, 20, 250), 1: (1000, 10, 250), 50: (100, 20, 50)}
    ipcs = {
        str(ipc): {"ipc": ipc, "labels": {"epochs": epochs, "batch_size": batch}, "evaluation": {"every": every}}
        for ipc, (epochs, batch, every) in lengths.items()
    }
    methods = {
        "FADRM": {},
        "RDED": RDED,
        "random": RANDOM,
        "FADRM+": {"method": {"method": "fadrm+", **few}, "teachers": [first, second]},
        "SRe2L++": {"method": {"method": "sre2l++", "budgets": [1000]}},
        "herding": HERDING,
    }
    axes = (_variants("ipc", ipcs), _variants("method", methods))
    return Run(name=name, title=title, data=data, spec=spec, axes=axes)


WIDTH_16: Spec = {"network": "resnet18_w16", "epochs": 10}
CPU_CIFAR10 = _small(
    "cpu-cifar10",
    "CIFAR-10, ConvNet of width 32",
    _folder(),
    CIFAR10,
    {"network": "convnet3_w32", "epochs": 16},
    WIDTH_16,
)
CPU_CIFAR10_RESNET = _small(
    "cpu-cifar10-resnet",
    "CIFAR-10, ResNet-18 of width 16",
    _folder(),
    CIFAR10,
    WIDTH_16,
    {"network": "convnet4", "epochs": 6},
)
CPU_TINY10 = _small(
    "cpu-tiny10",
    "Ten classes of Tiny-ImageNet at 32 px, ConvNet of width 32",
    _folder(resolution=32),
    TINY10,
    {"network": "convnet3_w32", "epochs": 40},
    {"network": "convnet3", "epochs": 15},
)


def _part_of(run: Run, name: str, title: str, *axes: dict[str, Any], **changes: Any) -> Run:
    """The same lengths and networks with something else that varies. changes: of parts of the spec."""
    merged = {part: run.spec[part] | patch for part, patch in changes.items()}
    return Run(name=name, title=title, data=run.data, spec=run.spec | merged, axes=axes)


CPU_SEEDS = _part_of(
    CPU_CIFAR10,
    "cpu-seeds",
    "CIFAR-10, 10 per class: other sets of the same methods",
    _variants("method", {"random": RANDOM, "RDED": RDED}),
    {"name": "seed", "path": "/seed", "values": [1, 2]},
    evaluation={"runs": 1},
)
CPU_LABELS = _part_of(
    CPU_TINY10,
    "cpu-labels",
    "Ten classes of Tiny-ImageNet, FADRM, 10 per class: labels by budget",
    _variants(
        "labels",
        {
            "top 1": {"labels": {"top_k": 1}},
            "top 3": {"labels": {"top_k": 3}},
            "pool of 100 epochs": {"labels": {"pool": 100}},
            "pool of 10 epochs": {"labels": {"pool": 10}},
        },
    ),
)


SHORT: Spec = {"epochs": 200, "batch_size": 50}
CPU_LABELS_200 = Run(
    name="cpu-labels-200",
    title="Tiny-ImageNet whole at 32 px, FADRM, 3 per class: labels by budget",
    data=TINY,
    spec=CPU_TINY10.spec
    | {
        "ipc": 3,
        "teachers": [{"network": "convnet3_w32", "epochs": 5}],
        "labels": SHORT,
        "evaluation": CPU_TINY10.spec["evaluation"] | {"every": 50},
    },
    axes=(
        _variants(
            "labels",
            {
                "all": {},
                "top 10": {"labels": {"top_k": 10}},
                "top 4": {"labels": {"top_k": 4}},
                "pool of 20 epochs": {"labels": {"pool": 20}},
                "pool of 10 epochs": {"labels": {"pool": 10}},
                "pool of 20 epochs, top 10": {"labels": {"pool": 20, "top_k": 10}},
            },
        ),
    ),
)
CPU_PRECISION = _part_of(
    CPU_TINY10,
    "cpu-precision",
    "Ten classes of Tiny-ImageNet, 10 per class: 16 and 32 bits",
    {"name": "precision", "path": "/precision", "values": ["bf16", "fp32"]},
    _variants("method", {"FADRM": {}, "RDED": RDED}),
)
CPU_CIFAR10_RUNNING = _part_of(
    CPU_CIFAR10,
    "cpu-cifar10-running",
    "CIFAR-10, 10 per class: labels by the teacher's running statistics",
    CPU_CIFAR10.axes[1],
    **BY_RUNNING,
)
CPU_TINY10_RUNNING = _part_of(
    CPU_TINY10,
    "cpu-tiny10-running",
    "Ten classes of Tiny-ImageNet, 10 per class: labels by the teacher's running statistics",
    CPU_TINY10.axes[1],
    **BY_RUNNING,
)


def _fadrm(**method: Any) -> Spec:
    return {"method": method}


def _sre2l(iterations: int, **method: Any) -> Spec:
    return {"method": {"method": "sre2l++", "budgets": [iterations], **method}}


TRIED = Run(
    name="tried",
    title="Ten other classes of Tiny-ImageNet, 10 per class: what was tried",
    data=TUNE10,
    spec=CPU_TINY10.spec,
    axes=(
        _variants(
            "what",
            {
                "FADRM": {},
                "FADRM, learning rate 0.05": _fadrm(lr=0.05),
                "FADRM, four times the iterations": _fadrm(budgets=[500] * 4),
                "FADRM, both": _fadrm(lr=0.05, budgets=[500] * 4),
                "FADRM, alpha 0.8": _fadrm(alpha=0.8),
                "FADRM, alpha 1.0 (no residual)": _fadrm(alpha=1.0),
                "FADRM, the easiest patches": {"patches": {"difficulty": "easy"}},
                "FADRM, any patches": {"patches": {"difficulty": "random"}},
                "FADRM, labels by running statistics": BY_RUNNING,
                "SRe2L++": _sre2l(1000),
                "SRe2L++, learning rate 0.05": _sre2l(1000, lr=0.05),
                "SRe2L++, FADRM's iterations": _sre2l(500),
                "SRe2L++, labels by running statistics": _sre2l(1000) | BY_RUNNING,
                "RDED": RDED,
                "RDED, labels by running statistics": RDED | BY_RUNNING,
                "random": RANDOM,
                "random, labels by running statistics": RANDOM | BY_RUNNING,
            },
        ),
    ),
)


def _preset(name: str) -> Spec:
    return PRESETS[name].spec.model_dump(mode="json")


def _as_the_paper(name: str, title: str, data: str, presets: str, **changes: Any) -> Run:
    """The paper's settings at 1, 10 and 50 images per class, its methods beside RDED and random images."""

    def row(ipc: int, word: str = "fadrm") -> Spec:
        return _preset(f"{presets}-ipc{ipc}-{word}-paper")

    def evaluation(spec: Spec) -> Spec:
        return {**spec["evaluation"], "baselines": [], **changes.get("evaluation", {})}

    base = row(10)
    method = base["method"] | changes.get("method", {})
    spec = base | {"dataset": _folder(resolution=base["dataset"]["resolution"]), "method": method}
    ipcs = {
        str(ipc): {"ipc": ipc, "labels": row(ipc)["labels"], "evaluation": evaluation(row(ipc))} for ipc in FIRST_IPCS
    }
    plus = row(10, "fadrm-plus")
    methods = {
        "FADRM": {},
        "RDED": RDED,
        "random": RANDOM,
        "FADRM+": {"method": plus["method"] | changes.get("method", {}), "teachers": plus["teachers"]},
    }
    axes = (_variants("ipc", ipcs), _variants("method", methods))
    return Run(name=name, title=title, data=data, spec=spec | {"evaluation": evaluation(base)}, axes=axes)


TINY_WHOLE = _as_the_paper("tiny", "Tiny-ImageNet, the paper's networks", TINY, "tiny-imagenet")
CIFAR10_WHOLE = _as_the_paper(
    "cifar10",
    "CIFAR-10, ResNet-18, the paper's settings of CIFAR-100",
    CIFAR10,
    "cifar100",
    method={"batch": 10},
    evaluation={"students": ["resnet18"], "rates": {}},
)
ARCHITECTURES = (
    "resnet18",
    "resnet50",
    "resnet101",
    "efficientnet_b0",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
    "swin_t",
    "wide_resnet50_2",
    "densenet121",
    "densenet169",
    "densenet201",
)


def _of_tiny(ipc: str, methods: Sequence[str], **evaluation: Any) -> tuple[Spec, tuple[dict[str, Any], ...]]:
    """Spec and axes of a part of the suite `tiny`, with another evaluation."""
    ipcs, by_method = TINY_WHOLE.axes
    [patch] = [one["patch"] for one in ipcs["variants"] if one["title"] == ipc]
    spec = TINY_WHOLE.spec | patch | {"evaluation": patch["evaluation"] | evaluation}
    return spec, ({"name": "method", "variants": [one for one in by_method["variants"] if one["title"] in methods]},)


CROSS_SPEC, CROSS_AXES = _of_tiny("10", ("FADRM+", "RDED"), students=ARCHITECTURES)
CONTINUAL_SPEC, CONTINUAL_AXES = _of_tiny(
    "50",
    ("FADRM", "RDED", "random"),
    students=["resnet18"],
    rates={},
    continual={"steps": [5, 10], "student": "resnet18"},
)


def _ablation(name: str, title: str, *axes: dict[str, Any]) -> Run:
    ablation = ABLATIONS.get(name)
    spec = CPU_CIFAR10.spec
    return Run(name=f"ablation-{name}", title=title, data=CIFAR10, spec=spec, axes=axes, ablation=ablation)


ABLATION_RUNS = (
    _ablation(
        "alpha",
        "Merge ratio (1.0: no residual)",
        {"name": "alpha", "path": "/method/alpha", "values": [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]},
    ),
    _ablation(
        "injections",
        "Injections, of 500 iterations in all",
        _variants("injections", {str(k): {"method": {"budgets": _split(500, k + 1)}} for k in range(7)}),
    ),
    _ablation(
        "resolution",
        "Side of the low stages, px",
        _variants("low side", {str(side): {"method": {"sizes": [side, 32] * 2}} for side in (23, 26, 29, 32)}),
    ),
    _ablation(
        "precision",
        "Precision of forward passes",
        {"name": "precision", "path": "/precision", "values": ["bf16", "fp32"]},
    ),
    _ablation(
        "patches",
        "Crops a patch",
        _variants("crops", {f"{side} x {side}": {"patches": {"factor": side}} for side in (1, 2)}),
    ),
)
LONG = Run(
    name="long",
    title="CIFAR-10, 10 per class, ResNet-18 of width 16, 2,000 iterations",
    data=CIFAR10,
    spec=CPU_CIFAR10_RESNET.spec
    | {
        "method": {"method": "fadrm", "lr": 0.05},
        "teachers": [WIDTH_16 | {"epochs": 16}],
        "evaluation": CPU_CIFAR10_RESNET.spec["evaluation"] | {"baselines": ["rded", "random"], "every": 200},
    },
    axes=({"name": "seed", "path": "/seed", "values": [0]},),
)
DIGITS_ALPHA = Run(
    name="digits-merge-ratio",
    title="Merge ratio alpha (1.0: no residual)",
    data=None,
    spec=DEMO.model_dump(mode="json"),
    axes=(
        {"name": "alpha", "path": "/method/alpha", "values": [0.0, 0.25, 0.5, 0.75, 1.0]},
        {"name": "ipc", "path": "/ipc", "values": [1, 10]},
    ),
)
DIGITS_K = Run(
    name="digits-injections",
    title="Injections k, of 400 iterations in all",
    data=None,
    spec=DEMO.model_dump(mode="json"),
    axes=(_variants("k", {str(k): {"method": {"budgets": _split(400, k + 1)}} for k in (0, 1, 3, 4, 7)}),),
)
SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="tiny",
            title="Tiny-ImageNet whole",
            note="Tables 1 and 12: ResNet-18 as teacher, ResNet-18, 50 and 101 as students. Ten images per class first.",
            runs=(TINY_WHOLE,),
        ),
        Suite(
            name="cifar10",
            title="CIFAR-10 whole",
            note="The paper has no CIFAR-10; beside it stand RDED's paper and CV-DD's table.",
            runs=(CIFAR10_WHOLE,),
        ),
        Suite(
            name="cross",
            title="Other networks",
            note="Table 2 right in its small form: the eleven networks on Tiny-ImageNet at ten images per class.",
            runs=(
                Run(
                    name="cross",
                    title="Tiny-ImageNet, 10 per class, eleven networks",
                    data=TINY,
                    spec=CROSS_SPEC,
                    axes=CROSS_AXES,
                ),
            ),
        ),
        Suite(
            name="ablation",
            title="Ablations on CIFAR-10",
            note="Tables 3 to 6 in their small form: the network and the lengths of the suite cpu, ten images per class.",
            runs=ABLATION_RUNS,
        ),
        Suite(
            name="continual",
            title="Class-incremental learning",
            note="Figure 6: Tiny-ImageNet at 50 images per class, its classes in 5 and in 10 groups.",
            runs=(
                Run(
                    name="continual",
                    title="Tiny-ImageNet, 50 per class, classes in groups",
                    data=TINY,
                    spec=CONTINUAL_SPEC,
                    axes=CONTINUAL_AXES,
                ),
            ),
        ),
        Suite(
            name="cpu",
            title="What two cores bear",
            note="Every method of the comparison with small networks, at 1, 10 and 50 images per class.",
            runs=(CPU_CIFAR10, CPU_TINY10, CPU_LABELS),
        ),
        Suite(
            name="resnet",
            title="CIFAR-10 with a deeper network",
            note="The suite cpu with ResNet-18 of width 16: some four hours of two cores.",
            runs=(CPU_CIFAR10_RESNET,),
        ),
        Suite(
            name="labels",
            title="Labels by budget, 200 classes",
            note="Where a label has many classes: what its largest logits, and a pool of epochs, cost in accuracy.",
            runs=(CPU_LABELS_200,),
        ),
        Suite(
            name="precision",
            title="What low precision costs",
            note="The suite cpu at ten images per class in bf16, which `auto` is on such a CPU, and in fp32.",
            runs=(CPU_PRECISION,),
        ),
        Suite(
            name="order",
            title="What the order of the methods hangs on",
            note="The suite cpu at ten images per class: labels by running statistics, and other sets by chance.",
            runs=(CPU_TINY10_RUNNING, CPU_CIFAR10_RUNNING, CPU_SEEDS),
        ),
        Suite(
            name="tried",
            title="FADRM against SRe2L++: what was tried",
            note="Learning rate, iterations, merge ratio and patches, on ten classes that no other suite reports.",
            runs=(TRIED,),
        ),
        Suite(
            name="long",
            title="CIFAR-10 with all iterations",
            note="One job with the paper's 2,000 iterations on two cores, beside RDED and random images.",
            runs=(LONG,),
        ),
        Suite(
            name="digits",
            title="Ablations on handwritten digits",
            note="The demo job (16 px, a ConvNet of width 32): nothing is fetched, a few minutes on two cores.",
            runs=(DIGITS_ALPHA, DIGITS_K),
        ),
    )
}
RUNS = {run.name: (suite, run) for suite in SUITES.values() for run in suite.runs}


def run_like(name: str, titles: Mapping[str, Sequence[str]]) -> Run | None:
    """The suites' sweep of that name, where it varies the same; None for anybody's own sweep. titles: axis -> titles."""
    found = RUNS.get(name)
    return found[1] if found and found[1].titles == {axis: list(of) for axis, of in titles.items()} else None
