"""The engine by itself, without the service.

    python -m engine run SPEC --out DIR     a whole job; SPEC is a .json or .yaml file, or the name of a preset
    python -m engine plan SPEC              its steps, as JSON
    python -m engine serve                  what workers start: requests on stdin, events on stdout, JSON lines

Exit codes: 0 done, 2 wrong usage, 3 the spec or the data must change, 75 asked to end and a checkpoint is left.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engine.errors import EngineError, SpecInvalid
from engine.launch import EXIT_DRAINED, EXIT_FAILED, adopt_environment, usual_threads
from engine.spec import JobSpec

if TYPE_CHECKING:  # torch takes seconds to import: `plan` and mistakes do without it
    from engine.events import Event
    from engine.plan import Plan, Step
    from engine.store import Store


def main(words: Sequence[str] | None = None) -> int:
    """Parse, call, answer."""
    options = _parser().parse_args(words)
    try:
        code: int = options.call(options)
    except EngineError as error:
        print(f"{error}\n{error.report.hint}".strip(), file=sys.stderr)
        return EXIT_FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description="FADRM without the service.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="do a whole job")
    run.add_argument("spec", help="a .json or .yaml file, or the name of a preset")
    run.add_argument("--out", type=Path, required=True, help="folder for the store and the download")
    run.set_defaults(call=_run)
    serve = commands.add_parser("serve", help="do steps that are asked for on stdin; what workers start")
    serve.add_argument("--parent", type=int, default=None, help="end when this process is gone")
    serve.set_defaults(call=_serve)
    for command in (run, serve):
        command.add_argument("--threads", type=int, default=None, help="CPU threads to compute with")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ...")
    show = commands.add_parser("plan", help="print the steps of a job")
    show.add_argument("spec")
    show.set_defaults(call=_plan)
    return parser


def read_spec(source: str) -> JobSpec:
    """A spec out of a file, or a preset's. Raises SpecInvalid, naming field and reason."""
    from engine.presets import PRESETS

    if source in PRESETS:
        return PRESETS[source].spec
    path = Path(source)
    if not path.is_file():
        raise SpecInvalid(f"{source!r} is no file and no preset.", hint=f"Presets: {', '.join(PRESETS)}.")
    try:
        return JobSpec.model_validate(_parsed(path))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'spec'}: {item['msg']}" for item in error.errors()]
        first = "/" + "/".join(map(str, error.errors()[0]["loc"]))
        raise SpecInvalid(f"{source} is no valid spec: {'; '.join(lines)}.", pointer=first) from error


def _parsed(path: Path) -> Any:
    try:
        return _from_yaml(path) if path.suffix in (".yaml", ".yml") else json.loads(path.read_text())
    except ValueError as error:
        raise SpecInvalid(f"{path} cannot be parsed: {error}.") from error


def _from_yaml(path: Path) -> Any:
    try:
        import yaml  # here: the engine itself does without
    except ImportError as error:
        raise SpecInvalid(f"{path} is YAML, and PyYAML is not installed.", hint="Write it as JSON.") from error
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(error) from error


def _plan(options: argparse.Namespace) -> int:
    from engine.datasets import describe
    from engine.plan import plan

    spec = read_spec(options.spec)
    print(plan(spec, describe(spec.dataset)).model_dump_json(indent=1))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from engine.serve import serve

    return serve(parent=options.parent, threads=options.threads)


def _run(options: argparse.Namespace) -> int:
    from engine import device as devices
    from engine.datasets import describe
    from engine.errors import Drained
    from engine.events import Failed
    from engine.plan import plan
    from engine.run import run
    from engine.serve import Drain
    from engine.store import Store

    spec, store, drain = read_spec(options.spec), Store(options.out / "store"), Drain()
    facts, device = describe(spec.dataset, store.uploads), devices.pick(options.device)
    planned = plan(spec, facts)
    devices.configure(device, threads=options.threads or usual_threads(facts.resolution))
    drain.listen()
    try:
        for step, event in run(planned, store, device=device, stop=drain.is_set):
            _tell(step, event)
            if isinstance(event, Failed):
                return EXIT_FAILED
    except Drained as drained:
        print(f"{drained}; run the same command to go on", file=sys.stderr)
        return EXIT_DRAINED
    _print_card(planned, store, options.out)
    return 0


def _tell(step: Step, event: Event) -> None:
    """One line on stderr for what is worth one."""
    from engine.events import Failed, Finished, Log, Metric, Started

    match event:
        case Started():
            since = f", going on from {event.resumed_at}" if event.resumed_at else ""
            line = f"{step.title} ({event.total} {event.unit}{since})"
        case Metric():
            line = f"  {event.x}: " + ", ".join(f"{name} {value:.4g}" for name, value in event.values.items())
        case Finished():
            line = f"  done in {event.seconds:.1f} s"
        case Failed():
            line = f"{event.error.message}\n{event.error.hint}".strip()
        case Log():
            line = f"  {event.level}: {event.message}"
        case _:
            return
    print(line, file=sys.stderr)


def _print_card(planned: Plan, store: Store, out: Path) -> None:
    """The score card, and a copy of the download."""
    import shutil

    from engine.scores import collect, table, verdicts

    scores = collect(
        ((row.subject, row.student, row.labels), store.manifest(key).result) for row in planned.rows for key in row.runs
    )
    for archive in store.step(planned.package).glob("*.zip"):
        shutil.copy2(archive, out / archive.name)
        print(f"{out / archive.name}")
    print(table(scores))
    print("\n".join(verdicts(scores)))


if __name__ == "__main__":
    adopt_environment()
    sys.exit(main())
