"""The Python client of FADRM Server. `from fadrm import Client`; nothing of the server is imported, and torch only when asked for."""

from fadrm.client import Client as Client
from fadrm.errors import ClientError as ClientError
from fadrm.errors import Damaged as Damaged
from fadrm.errors import Refused as Refused
from fadrm.errors import Unreachable as Unreachable
from fadrm.jobs import Job as Job
from fadrm.models import Answer as Answer
from fadrm.sets import Distilled as Distilled
from fadrm.sweeps import Sweep as Sweep
