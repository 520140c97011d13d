"""`fadrm admin`: accounts and teams, straight in the database of this machine's server.

Who may read that database is its owner: there is nobody to ask. What is done is written into the audit log all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli_home import Home, transaction
from app.remote import AsJson, out, print_json
from app.settings import load

app = typer.Typer(help="Accounts and teams of this machine's server.", no_args_is_help=True)
users = typer.Typer(help="Make, list, change, disable and invite people.", no_args_is_help=True)
teams = typer.Typer(help="Make teams, and say who is in them.", no_args_is_help=True)
app.add_typer(users, name="user")
app.add_typer(teams, name="team")

User_ = Annotated[str, typer.Argument(metavar="USER", help="The name of an account.")]
Team = Annotated[str, typer.Argument(metavar="TEAM", help="The name of a team.")]
Role = Annotated[str, typer.Option(help="admin, member or viewer.")]


@users.command("add")
def add_user(
    name: User_,
    role: Role = "member",
    team: Annotated[list[str] | None, typer.Option(help="A team to be in; may be given more than once.")] = None,
    home: Home = None,
) -> None:
    """Make an account, and print the link with which its owner sets a password."""
    from pydantic import ValidationError

    from app import people
    from app.planning import NAME

    try:
        name = NAME.validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter(str(error.errors()[0]["msg"])) from error
    with transaction(home) as session:
        user = people.add(session, None, name, _role(role), team or ())
        plain = people.invite(session, None, user)
    _tell_link(home, name, plain)


@users.command("list")
def list_users(home: Home = None, as_json: AsJson = False) -> None:
    """List all accounts."""
    from app import people, terminal
    from app.api.people import user_out

    with transaction(home) as session:
        found = people.everybody(session)
    if as_json:
        return print_json([user_out(person) for person in found])
    rows = [
        (
            person.user.name,
            person.user.role,
            ", ".join(person.teams) or "–",
            "disabled" if person.user.disabled_at else "password" if person.user.password else "links and tokens",
            f"{person.user.created_at:%Y-%m-%d}",
        )
        for person in found
    ]
    return terminal.print_table(out, ("Name", "Role", "Teams", "Logs in by", "Made"), rows)


@users.command("disable")
def disable_user(name: User_, home: Home = None) -> None:
    """Let somebody be out at once: sessions, tokens and links end. Their jobs stay."""
    _change(home, name, is_disabled=True)
    out.print(f"{name} is disabled.", highlight=False, markup=False)


@users.command("enable")
def enable_user(name: User_, home: Home = None) -> None:
    """Let somebody log in again."""
    _change(home, name, is_disabled=False)
    out.print(f"{name} can log in again, and needs new tokens.", highlight=False, markup=False)


@users.command("role")
def change_role(
    name: User_, role: Annotated[str, typer.Argument(help="admin, member or viewer.")], home: Home = None
) -> None:
    """Give somebody another role."""
    _change(home, name, role=_role(role))
    out.print(f"{name} is {role}.", highlight=False, markup=False)


@users.command("invite")
def invite_user(name: User_, home: Home = None) -> None:
    """Print a link with which somebody sets a password, once. Earlier links end."""
    _invite(home, name, reset=False)


@users.command("password-reset")
def reset_password(name: User_, home: Home = None) -> None:
    """End somebody's password, sessions and tokens, and print a link for a new password."""
    _invite(home, name, reset=True)


@teams.command("add")
def add_team(name: Team, home: Home = None) -> None:
    """Make a team."""
    from app import people

    with transaction(home) as session:
        people.add_team(session, None, name)
    out.print(f"There is a team {name}.", highlight=False, markup=False)


@teams.command("list")
def list_teams(home: Home = None, as_json: AsJson = False) -> None:
    """List all teams, and who is in them."""
    from app import people, terminal

    with transaction(home) as session:
        found = people.teams(session)
    if as_json:
        return print_json([{"name": name, "members": members} for name, members in found.items()])
    return terminal.print_table(
        out, ("Team", "People"), [(name, ", ".join(members) or "nobody yet") for name, members in found.items()]
    )


@teams.command("remove")
def remove_team(name: Team, home: Home = None) -> None:
    """Remove a team; its people and their work stay."""
    from app import people

    with transaction(home) as session:
        people.remove_team(session, None, name)
    out.print(f"There is no team {name} any more.", highlight=False, markup=False)


@teams.command("join")
def join_team(name: Team, user: User_, home: Home = None) -> None:
    """Take somebody into a team: they see what its people show to their team."""
    _move(home, user, name, joins=True)
    out.print(f"{user} is in {name}.", highlight=False, markup=False)


@teams.command("leave")
def leave_team(name: Team, user: User_, home: Home = None) -> None:
    """Take somebody out of a team."""
    _move(home, user, name, joins=False)
    out.print(f"{user} is not in {name}.", highlight=False, markup=False)


def _move(home: Path | None, user: str, team: str, *, joins: bool) -> None:
    from app import people

    with transaction(home) as session:
        found = people.named(session, user)
        others = [name for name in people.teams_of(session, found) if name != team]
        people.change(session, None, found, teams=[*others, *([team] if joins else [])])


def _change(home: Path | None, name: str, **changes: Any) -> None:
    from app import people

    with transaction(home) as session:
        people.change(session, None, people.named(session, name), **changes)


def _invite(home: Path | None, name: str, *, reset: bool) -> None:
    from app import people

    with transaction(home) as session:
        plain = people.invite(session, None, people.named(session, name), reset=reset)
    _tell_link(home, name, plain)


def _tell_link(home: Path | None, name: str, plain: str) -> None:
    from app import local

    out.print(f"Give this link to {name}: it sets a password, once, within a week.", highlight=False, markup=False)
    url = f"{local.address(load(home))}/invitation?token={plain}"
    out.print(url, highlight=False, markup=False, soft_wrap=True)


def _role(role: str) -> str:
    from app import auth

    if role not in auth.ROLES:
        raise typer.BadParameter(f"{role!r} is no role: choose one of {', '.join(auth.ROLES)}")
    return role
