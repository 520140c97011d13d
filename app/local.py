"""The server on this machine, for commands of the user whom it belongs to: past the API, straight to its files."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import auth, services
from app.errors import NotFound
from app.models import Token, User
from app.redis_server import write_private
from app.settings import Settings
from fadrm import connection


def connect(settings: Settings, url: str) -> connection.Connection:
    """A token for the commands of this user, kept in the home folder; the last one where it is still good."""
    path = settings.home / connection.FILE
    with services.build(settings) as built, built.database.write() as session:
        known = connection.read(settings.home)
        token = known.token if known and auth.identify(session, known.token, "api") else ""
        if not token:
            _, token = auth.api_token(session, auth.bootstrap(session), "command line on this machine", None)
    made = connection.Connection(url=url, token=token)
    write_private(path, made.model_dump_json())
    return made


def login_url(settings: Settings, url: str) -> str:
    """A link that logs an administrator in, once."""
    with services.build(settings) as built, built.database.write() as session:
        return f"{url}/login?token={auth.login_link(session, auth.bootstrap(session))}"


def user(session: Session, name: str, role: str = "member") -> User:
    """The user of that name, made when there is none."""
    if name == "admin":
        return auth.bootstrap(session)
    return session.scalar(select(User).where(User.name == name)) or auth.add_user(session, name, role)


def tokens(session: Session) -> list[tuple[Token, User]]:
    """Every API token that can still be used, newest first, and whose it is."""
    query = select(Token, User).join(User, User.id == Token.user_id)
    rows = session.execute(query.where(Token.kind == "api", Token.revoked_at.is_(None)).order_by(Token.id.desc()))
    return [(row.Token, row.User) for row in rows]


def owner_of(session: Session, token_id: str) -> User:
    """Whose token it is. Raises NotFound."""
    owner = session.scalar(select(User).join(Token, Token.user_id == User.id).where(Token.id == token_id))
    if owner is None:
        raise NotFound(f"There is no token {token_id}.", hint="`fadrm token list` names them.")
    return owner


def address(settings: Settings) -> str:
    """Where this machine's server is, as far as is known."""
    known = connection.read(settings.home)
    return settings.public_url or (known.url if known else "http://127.0.0.1:8080")
