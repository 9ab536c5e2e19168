"""Asking the simulator as a program does: the answer as JSON."""

import json
from typing import Any

from rds_csi.simulator import Simulator


async def read(rds: Simulator, query: str) -> Any:
    value = f":put [:serialize to=json options=json.no-string-conversion value=[{query}]]"
    return json.loads(await rds.run(value))
