"""The command tree of a device, and who runs what in it."""

import asyncio
import random
from dataclasses import replace
from typing import Final, Protocol

from rds_csi.simulator.device.access import Rights, needed
from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.faults import Fault
from rds_csi.simulator.device.texts import NOT_PERMITTED
from rds_csi.simulator.journal import Exec
from rds_csi.simulator.language.grammar import LANGUAGE, Grammar, MenuNode, verbs
from rds_csi.simulator.language.interpreter import Call
from rds_csi.simulator.language.values import RuntimeFault, Value, text_of, to_text
from rds_csi.simulator.menus.addresses import ADDRESSES, AddressMenu
from rds_csi.simulator.menus.administration import KINDS, StoredMenu
from rds_csi.simulator.menus.disk import DiskMenu
from rds_csi.simulator.menus.file import FileMenu
from rds_csi.simulator.menus.log import LogMenu
from rds_csi.simulator.menus.system import IdentityMenu, PackageMenu, ResourceMenu, SshMenu
from rds_csi.simulator.menus.system_clock import ClockMenu

_random: Final = random.SystemRandom()


class Menu(Protocol):
    """Anything that runs the commands of a console path."""

    async def execute(self, call: Call) -> Value:
        """Run one; its value."""


def grammar(device: Device) -> Grammar:
    """The command tree in the device's version."""
    system = {
        "resource": ResourceMenu.node(),
        "identity": IdentityMenu.node(),
        "package": PackageMenu.node(),
        "clock": ClockMenu.node(),
    }
    menus = {
        "disk": DiskMenu.node(device),
        "file": FileMenu.node(device),
        "log": LogMenu.node(device),
        "system": MenuNode(menus=system),
    }
    kinds = {kind.path: StoredMenu.node(device, kind) for kind in (*KINDS, ADDRESSES)}
    menus["user"] = replace(
        kinds["user",],
        menus={"group": kinds["user", "group"], "ssh-keys": kinds["user", "ssh-keys"]},
    )
    firewall = MenuNode(
        menus={name: kinds["ip", "firewall", name] for name in ("filter", "address-list")}
    )
    address = {"service": kinds["ip", "service"], "ssh": SshMenu.node(device), "firewall": firewall}
    menus["ip"] = MenuNode(menus=address)
    version = device.settings.version
    return Grammar(version, MenuNode(menus=menus), verbs(version, LANGUAGE))


class MenuTree:
    """Runs menu commands for one exec, and enters them in its journal record."""

    def __init__(
        self, device: Device, record: Exec, failing: Fault | None, rights: Rights | None = None
    ) -> None:
        """``rights``: what the user may do; None: everything."""
        self._device = device
        self._rights = rights
        self._failing = failing
        self._record = record
        self._menus: dict[tuple[str, ...], Menu] = {
            ("disk",): DiskMenu(device),
            ("file",): FileMenu(device),
            ("log",): LogMenu(device),
            ("system", "resource"): ResourceMenu(device),
            ("system", "identity"): IdentityMenu(device),
            ("system", "package"): PackageMenu(device),
            ("system", "clock"): ClockMenu(device),
            ("ip", "ssh"): SshMenu(device),
            **{kind.path: StoredMenu(device, kind) for kind in KINDS},
            ADDRESSES.path: AddressMenu(device),
        }

    async def execute(self, call: Call) -> Value:
        """Run the command, at some moment of the time that it takes."""
        if self._device.quirks.interleave:
            await asyncio.sleep(0)
        step = self._device.quirks.step_latency
        if not step:
            return await self._execute(call)
        before = _random.uniform(0, step)
        await asyncio.sleep(before)
        try:
            return await self._execute(call)
        finally:
            await asyncio.sleep(step - before)

    def _ran(self, name: str) -> bool:
        """Whether a command of that name was run before in this exec; of no name always."""
        return not name or any(each.name == name for each in self._record.executed)

    async def _execute(self, call: Call) -> Value:
        """Run it, unless a fault says it fails."""
        arguments = {name: to_text(text_of(value)) for name, value in call.arguments.items()}
        self._record.enter(call.command.name, arguments)
        if self._rights is not None and needed(call.command) not in self._rights:
            raise RuntimeFault(NOT_PERMITTED)
        failing = self._failing
        if failing and failing.command in ("", call.command.name) and self._ran(failing.after):
            self._failing = None
            raise RuntimeFault(failing.text or "action failed (6)")
        return await self._menus[call.command.path].execute(call)
