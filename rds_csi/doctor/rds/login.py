"""From the RDS's address to a session that works: each step needs the one before.

Proven in ``tests/rds/test_doctor.py``.
"""

import asyncio
from dataclasses import replace

import asyncssh

from rds_csi.config import ControllerConfig
from rds_csi.doctor.check import Checks
from rds_csi.doctor.reach import SSH, Answer, reach
from rds_csi.errors import (
    DriverError,
    NotAuthorised,
    NotReady,
    UnsupportedRouterOS,
    UntrustedHostKey,
)
from rds_csi.routeros import Disks, Session, SessionSettings, System
from rds_csi.routeros.settings import client_key, need_no_local_user, trusted_keys


async def connect(checks: Checks, controller: ControllerConfig) -> Session | None:
    """A session that works; None where the checks say why there is none."""
    there = await reach(controller.rds_address, controller.rds_port, SSH)
    if there.answer is not Answer.OPEN:
        checks.fail(
            "SSH address",
            there.found,
            "look at --rds-address and --rds-port, at /ip/service/print (ssh on, and its address "
            "list) and at firewalls in between",
        )
        return None
    checks.ok("SSH address", there.found)
    settings = await _settings(checks, controller)
    if settings is None:
        return None
    session = Session(settings)
    try:
        await Disks(session, owner="doctor", base_path=controller.defaults.volume_path).system()
    except DriverError as error:
        await session.close()
        await _explain(checks, controller, error)
        return None
    _greeted(checks, controller)
    if session.system is not None:
        _check_version(checks, session.system)
    return session


async def _settings(checks: Checks, controller: ControllerConfig) -> SessionSettings | None:
    """Host keys and private key, as far as they can be judged without the RDS."""
    name = "host key"
    try:
        settings = replace(SessionSettings.of(controller), connect_timeout=5.0, login_timeout=10.0)
        name = "private key"
        key = await asyncio.to_thread(client_key, settings)
    except DriverError as error:
        checks.fail(name, error.what, error.advice or "see --rds-key-file")
        return None
    checks.ok("private key", f"{key.get_algorithm()}, readable by its owner alone")
    return settings


async def _explain(checks: Checks, controller: ControllerConfig, error: DriverError) -> None:
    """How far it came."""
    if isinstance(error, UntrustedHostKey):
        shown = await _shown_key(controller)
        checks.fail("host key", f"{error.what}{shown}", error.advice)
        return
    if isinstance(error, NotAuthorised):
        _host_key(checks, controller)
        checks.fail("login", error.what, error.advice)
        return
    if isinstance(error, UnsupportedRouterOS):
        _greeted(checks, controller)
        checks.fail("RouterOS version", error.what, error.advice)
        return
    name = "policies" if isinstance(error, NotReady) else "login"
    checks.fail(name, error.what, error.advice or "see /log/print on the RDS")


async def _shown_key(controller: ControllerConfig) -> str:
    """What the other side shows, for comparison."""
    need_no_local_user()
    try:
        async with asyncio.timeout(10):
            key = await asyncssh.get_server_host_key(
                controller.rds_address, controller.rds_port, config=None
            )
    except (OSError, asyncssh.Error, TimeoutError):
        return ""
    return f": {key.get_algorithm()} {key.get_fingerprint()}" if key is not None else ""


def _greeted(checks: Checks, controller: ControllerConfig) -> None:
    _host_key(checks, controller)
    checks.ok("login", f"as {controller.rds_user}")


def _host_key(checks: Checks, controller: ControllerConfig) -> None:
    if controller.rds_accept_any_host_key:
        checks.warn(
            "host key",
            "any is accepted: whoever answers gets to be the RDS",
            "pin it: --rds-host-key-file instead of --rds-accept-any-host-key-insecure",
        )
        return
    keys = trusted_keys(controller.rds_host_keys)
    prints = ", ".join(f"{key.get_algorithm()} {key.get_fingerprint()}" for key in keys)
    checks.ok("host key", f"pinned, and shown by the RDS ({prints})")


def _check_version(checks: Checks, system: System) -> None:
    name, text = "RouterOS version", f"{system.version} on {system.board or 'an unnamed board'}"
    if system.patched:
        checks.ok(name, text)
    else:
        checks.fail(
            name,
            f"{text}: lacks the fixes of CVE-2026-67276 and CVE-2026-86060, by which others log in",
            "upgrade to 7.23.4, or 7.24.2 or later; until then only Ed25519 keys for every user",
        )
