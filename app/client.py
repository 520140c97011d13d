"""The client under its former name: `from fadrm import Client` is the way."""

from fadrm import Client

__all__ = ["Client"]
