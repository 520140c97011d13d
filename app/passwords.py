"""Passwords: which are good enough, and their argon2id hashes.

A hash takes 64 MiB and a core for a moment, so only few are made at once: logging in must not be a way to fill the memory.
"""

from __future__ import annotations

import threading
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import Unprocessable
from engine.errors import ErrorReport

LEAST, MOST = 12, 200  # characters
LEAST_DISTINCT = 5
AT_ONCE = 2
# Stripped of digits and signs, in lower case, what people choose who are asked for twelve characters.
OBVIOUS = frozenset(
    {
        "", "password", "passwordpassword", "passwort", "passwortpasswort", "motdepasse", "contrasena", "admin",
        "adminadmin", "administrator", "administratoradministrator", "changeme", "changemenow", "pleasechangeme",
        "letmein", "letmeinplease", "letmeinletmein", "welcome", "welcomewelcome", "qwerty", "qwertyuiop",
        "qwertyuiopasdf", "qwertyqwerty", "qwertzuiop", "asdfghjkl", "asdfasdfasdf", "iloveyou", "iloveyousomuch",
        "correcthorsebatterystaple", "trustno", "abc", "abcabcabcabc", "abcdefghijkl", "abcdefghijklm", "secret",
        "secretsecret", "mysecretpassword", "thisismypassword", "fadrm", "fadrmfadrm", "fadrmserver", "distillation",
    }
)  # fmt: skip
_hasher = PasswordHasher()
_turns = threading.BoundedSemaphore(AT_ONCE)


def check(password: str, name: str, pointer: str = "/password") -> str:
    """The password as it is kept (NFKC). Raises Unprocessable, saying what is wrong with it and never what it is."""
    password = unicodedata.normalize("NFKC", password)
    letters = "".join(character for character in password.casefold() if character.isalpha())
    if len(password) < LEAST:
        raise _refused(f"The password has {len(password)} characters, and at least {LEAST} are needed.", pointer)
    if len(password) > MOST:
        raise _refused(f"The password has more than {MOST} characters.", pointer)
    if len(set(password)) < LEAST_DISTINCT or letters in OBVIOUS:
        raise _refused("This is among the first passwords that anybody would try.", pointer)
    if len(name) > 2 and name.casefold() in password.casefold():
        raise _refused("The password holds your name.", pointer)
    return password


def _refused(message: str, pointer: str) -> Unprocessable:
    hint = "Four words that have nothing to do with each other do well."
    return Unprocessable(
        message, hint=hint, errors=[ErrorReport(code="bad_password", message=message, hint=hint, pointer=pointer)]
    )


def hashed(password: str) -> str:
    """What is kept of a password: argon2id with the costs of RFC 9106 for little memory, and its own salt."""
    with _turns:
        return _hasher.hash(password)


def matches(password: str, kept: str | None) -> bool:
    """Whether it is the one. It takes as long for somebody who is not known, or has no password."""
    with _turns:
        try:
            _hasher.verify(kept or _nobodys(), unicodedata.normalize("NFKC", password))
        except (VerificationError, InvalidHashError):
            return False
    return kept is not None


@cache
def _nobodys() -> str:
    return _hasher.hash("nobody has this password")
