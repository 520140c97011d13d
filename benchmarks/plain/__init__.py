"""The yardstick: each part as the paper's authors do it, in plain PyTorch. Generators that tell how many units are done."""

from collections.abc import Callable, Iterator

from benchmarks.plain.labels import label
from benchmarks.plain.reading import read
from benchmarks.plain.recover import recover
from benchmarks.plain.students import train_student
from benchmarks.plain.teachers import teach
from benchmarks.task import Task

PLAIN: dict[str, Callable[[Task], Iterator[int]]] = {
    "recover": recover,
    "labels": label,
    "student": train_student,
    "teach": teach,
    "read": read,
}
