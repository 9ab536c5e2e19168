"""Whether the driver answers on its socket, and whether it is the one that is meant."""

import asyncio
import stat
from pathlib import Path
from typing import Final

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from rds_csi.csi import v1 as csi
from rds_csi.doctor.check import Checks

_TIMEOUT: Final = 5.0


async def check_socket(checks: Checks, endpoint: Path, driver_name: str) -> None:
    """A missing socket is no failure: the driver may not have been started yet."""
    name = f"socket {endpoint}"
    try:
        mode = _mode(endpoint)
    except OSError as error:
        checks.warn(
            name,
            f"cannot be used: {error.strerror}",
            "start the driver; in its pod, is the doctor in the container rds-csi?",
        )
        return
    if not stat.S_ISSOCK(mode):
        checks.fail(name, "not a socket", "remove it; the driver makes its own")
        return
    try:
        async with asyncio.timeout(_TIMEOUT):
            ready, served, version = await _ask(endpoint)
    except (OSError, GRPCError, StreamTerminatedError, TimeoutError) as error:
        why = f"does not answer within {_TIMEOUT:g} s" if isinstance(error, TimeoutError) else error
        checks.fail(name, f"no driver serves there: {why}", "see the log of the driver")
        return
    if served != driver_name:
        checks.fail(
            name,
            f"{served} {version} serves there, not {driver_name}",
            "--driver-name or --endpoint is not the driver's",
        )
    elif not ready:
        checks.warn(name, f"{served} {version} is not ready", "see the log of the driver")
    elif stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
        checks.warn(
            name,
            f"{served} {version} is ready, but others than its owner may use it "
            f"(mode {stat.S_IMODE(mode):04o})",
            "chmod 600: who can write to it can mount and format volumes",
        )
    else:
        checks.ok(name, f"{served} {version} is ready")


def _mode(endpoint: Path) -> int:
    return endpoint.stat().st_mode


async def _ask(endpoint: Path) -> tuple[bool, str, str]:
    """Whether it is ready; its name and version."""
    channel = Channel(path=str(endpoint))
    try:
        identity = csi.IdentityStub(channel)
        probe = await identity.probe(csi.ProbeRequest())
        info = await identity.get_plugin_info(csi.GetPluginInfoRequest())
    finally:
        channel.close()
    return probe.ready is not False, info.name, info.vendor_version
