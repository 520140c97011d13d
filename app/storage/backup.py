"""A copy of everything that a server must not lose, and a server made of one.

database.db or database.dump   SQLite's own copy, or what pg_dump wrote
secret                         what signs CSRF tokens, for its owner alone
store/                         by wish: whole steps, contact sheets and uploads, linked where the disk does that, else copied
backup.json                    what it is, written last: where it is, the backup is whole

The database is copied first, and steps are never written again: what its rows call finished is in the store's copy.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError
from sqlalchemy import URL, create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from app import migrate
from app.models import utc_now
from app.settings import Settings
from app.trouble import CannotStart
from engine.store import Store, sha256_of_file, write_atomically

HEAD = "backup.json"
FILES = {"sqlite": "database.db", "postgresql": "database.dump"}
PASSING = re.compile(r"\..*\.tmp")  # what `write_atomically` has not finished
PARTS = ("blobs", "uploads")  # of the store, besides whole steps


class Backup(BaseModel, frozen=True):
    """What a backup is."""

    made_at: datetime
    database: str  # sqlite, postgresql
    sha256: str  # of the database's file
    revision: str | None  # of its schema
    steps: int  # in its store; 0 where that was not wanted


def backup(settings: Settings, target: Path, *, with_store: bool = False) -> Backup:
    """Write a backup to a new folder, or to a file whose name ends in .tar. A server may run meanwhile.

    Raises CannotStart, and leaves nothing then.
    """
    if target.exists():
        raise CannotStart(f"{target} is there already: name a new folder, or a new file that ends in .tar.")
    if with_store and settings.bucket:
        raise CannotStart(f"The store is in {settings.bucket}: copy the bucket, and back up the rest without --store.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = _write(settings, part, with_store=with_store)
        if target.suffix == ".tar":
            packed = part.with_name(f"{part.name}.tar")
            with tarfile.open(packed, "w") as archive:
                archive.add(part, ".")
            packed.chmod(0o600)
            packed.replace(target)
        else:
            part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def restore(settings: Settings, source: Path) -> Backup:
    """Make a server's home, database and store of a backup; the schema is brought to the newest. No server may run there.

    What the store has already stays. Raises CannotStart, before anything is written, when the backup is not whole or the
    database is not empty.
    """
    with _opened(source) as folder:
        found = _checked(folder)
        url = make_url(settings.database)
        if url.get_backend_name() != found.database:
            raise CannotStart(
                f"The backup is of {found.database}, and FADRM_DATABASE_URL names {url.get_backend_name()}."
            )
        _must_be_empty(url)
        if (folder / "store").is_dir():
            _copy_tree(folder / "store", settings.store_root)
        if (folder / "secret").is_file() and not (settings.home / "secret").exists():
            shutil.copy2(folder / "secret", settings.home / "secret")
        if found.database == "sqlite":
            _copy_into_place(folder / FILES["sqlite"], Path(url.database or ""))
        else:
            _run_postgres("pg_restore", url, "--no-owner", "--exit-on-error", str(folder / FILES["postgresql"]))
    migrate.upgrade(settings.database)
    return found


def _write(settings: Settings, folder: Path, *, with_store: bool) -> Backup:
    url = make_url(settings.database)
    kind = url.get_backend_name()
    file = folder / FILES[kind]
    if kind == "sqlite":
        _copy_sqlite(Path(url.database or ""), file)
    else:
        _run_postgres("pg_dump", url, "--format=custom", "--no-owner", f"--file={file}")
    file.chmod(0o600)
    secret = settings.home / "secret"
    if secret.is_file():
        shutil.copy2(secret, folder / "secret")
    steps = _copy_store(settings.store_root, folder / "store") if with_store else 0
    made = Backup(
        made_at=utc_now(),
        database=kind,
        sha256=sha256_of_file(file),
        revision=_revision(settings.database),
        steps=steps,
    )
    write_atomically(folder / HEAD, made.model_dump_json(indent=1).encode())
    return made


def _copy_sqlite(path: Path, target: Path) -> None:
    """SQLite's own copy of a file that others write to meanwhile, looked at before it counts."""
    if not path.is_file():
        raise CannotStart(f"There is no database at {path}.")
    try:
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            told = copy.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise CannotStart(f"{path} cannot be read: {error}. {migrate.REMEDY}") from error
    if told != "ok":
        raise CannotStart(f"{path} is damaged: {told}. {migrate.REMEDY}")


def _run_postgres(program: str, url: URL, *words: str) -> None:
    """Run one of PostgreSQL's own programs on a database. The password travels in the environment, which others cannot see."""
    if shutil.which(program) is None:
        raise CannotStart(f"{program} is not installed: it comes with PostgreSQL's client programs.")
    plain = url.set(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    done = subprocess.run(
        [program, f"--dbname={plain}", *words], check=False, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise CannotStart(f"{program} failed: {done.stderr.strip()[-500:]}")


def _copy_store(root: Path, target: Path) -> int:
    """Whole steps, contact sheets and uploads. How many steps."""
    count = 0
    for key in Store(root).whole_keys():
        _copy_tree(root / "steps" / key, target / "steps" / key)
        count += 1
    for name in PARTS:
        if (root / name).is_dir():
            _copy_tree(root / name, target / name)
    return count


def _copy_tree(source: Path, target: Path) -> None:
    """Link files, or copy them where the disk does not do that; what is there already stays, what is passing is left out."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if not path.is_file() or relative.parts[0].startswith("tmp-") or PASSING.fullmatch(path.name):
            continue
        goal = target / relative
        goal.parent.mkdir(parents=True, exist_ok=True)
        if goal.exists():
            continue
        try:
            os.link(path, goal)
        except OSError:
            _copy_into_place(path, goal)


def _copy_into_place(source: Path, target: Path) -> None:
    """Whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.copy2(source, part)
    part.replace(target)


def _revision(database_url: str) -> str | None:
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            return migrate.revision(connection)
    finally:
        engine.dispose()


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """A backup as a folder."""
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise CannotStart(f"There is no backup at {source}.")
    with tempfile.TemporaryDirectory(prefix="fadrm-restore-", dir=source.parent) as folder:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise CannotStart(f"{source} is no backup: {error}.") from error
        yield Path(folder)


def _checked(folder: Path) -> Backup:
    """Raises CannotStart when the backup was not finished, or its database is not what was written."""
    try:
        found = Backup.model_validate_json((folder / HEAD).read_bytes())
    except (OSError, ValidationError) as error:
        raise CannotStart(f"{folder} is no whole backup: it has no {HEAD} that can be read.") from error
    file = folder / FILES[found.database]
    if not file.is_file() or sha256_of_file(file) != found.sha256:
        raise CannotStart(f"{file} is damaged: its bytes are not those that were written. Take another backup.")
    return found


def _must_be_empty(url: URL) -> None:
    """Raises CannotStart when there is something in the database already, or it does not answer."""
    if url.get_backend_name() == "sqlite":
        if Path(url.database or "").exists():
            raise CannotStart(f"{url.database} is there already: move it away first, with the server stopped.")
        return
    engine = create_engine(url)
    try:
        tables = inspect(engine).get_table_names()
    except SQLAlchemyError as error:
        raise CannotStart(f"The database does not answer: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()
    if tables:
        raise CannotStart(f"The database has {len(tables)} tables already: name an empty one.")
