"""``/system``: resource, package, identity; and ``/ip/ssh``, another single object."""

import os
from collections.abc import Iterable
from typing import Any, Final

from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.files import INTERNAL_SIZE
from rds_csi.simulator.device.properties import Form, Property
from rds_csi.simulator.device.texts import bad_enum
from rds_csi.simulator.language.grammar import FIND, GET, PRINT_PARAMETERS, MenuNode, Verb, values
from rds_csi.simulator.language.interpreter import Call, Row
from rds_csi.simulator.language.values import Array, Duration, Id, RuntimeFault, Value, text_of
from rds_csi.simulator.menus import printing
from rds_csi.simulator.menus.table import Table

_PRINT = Verb("print", PRINT_PARAMETERS)
_GET = Verb("get", values("value-name"), unnamed=("value-name",))

_SSH: Final = (
    Property("strong-crypto", Form.YES_NO, default=False),
    Property("host-key-size", Form.NUMBER, 2048, low=1024, high=8192),
    Property("host-key-type", Form.ENUM, "rsa", choices=("rsa", "ed25519"), since=(7, 9)),
    Property("always-allow-password-login", Form.YES_NO, default=False, until=(7, 21)),
    Property(
        "password-authentication",
        Form.ENUM,
        "yes-if-no-key",
        choices=("yes", "no", "yes-if-no-key"),
        since=(7, 21),
    ),
)


def single_node() -> MenuNode:
    """The command tree of a menu that is one object and cannot be changed."""
    return MenuNode(verbs={"print": _PRINT, "get": _GET})


class Single:
    """A menu that is one object."""

    def row(self) -> Row:
        """Its properties."""
        raise NotImplementedError

    async def execute(self, call: Call) -> Value:
        """``print`` and ``get``."""
        row = self.row()
        if call.command.verb == "get":
            name = text_of(call.arguments.get("value-name", ""))
            if not name:
                return Array(keys=dict(row))
            if name not in row:
                raise RuntimeFault(bad_enum("value-name"), argument="value-name")
            return row[name]
        if call.flag("as-value"):
            wanted = text_of(call.arguments.get("proplist", "")).split(",")
            return Array(keys={key: row[key] for key in row if wanted == [""] or key in wanted})
        for line in printing.single(self.printed(row)):
            call.write(line)
        return None

    def printed(self, row: Row) -> Row:
        """The properties as people are shown them."""
        return row


class ResourceMenu(Single):
    """``/system/resource``."""

    def __init__(self, device: Device) -> None:
        self._device = device

    @staticmethod
    def node() -> MenuNode:
        """Its command tree."""
        return MenuNode(verbs={"print": _PRINT, "get": _GET})

    def row(self) -> Row:
        """What the device is."""
        settings = self._device.settings
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        return {
            "uptime": Duration(self._device.uptime * 1000),
            "version": settings.version_text,
            "factory-software": "7.17",
            "free-memory": available,
            "total-memory": memory,
            "cpu": "ARM64",
            "cpu-count": os.cpu_count() or 1,
            "cpu-load": 0,
            "free-hdd-space": self._device.files.free(None),
            "total-hdd-space": INTERNAL_SIZE,
            "architecture-name": "arm64",
            "board-name": settings.board,
            "platform": "MikroTik",
        }


class IdentityMenu(Single):
    """``/system/identity``."""

    def __init__(self, device: Device) -> None:
        self._device = device

    @staticmethod
    def node() -> MenuNode:
        """Its command tree."""
        return MenuNode(verbs={"print": _PRINT, "get": _GET, "set": Verb("set", values("name"))})

    def row(self) -> Row:
        """The name."""
        return {"name": self._device.store.identity}

    async def execute(self, call: Call) -> Value:
        """Also ``set name=``."""
        if call.command.verb != "set":
            return await super().execute(call)
        self._device.store.identity = text_of(call.arguments.get("name", ""))
        self._device.store.dirty = True
        return None


class SshMenu(Single):
    """``/ip/ssh``: kept and shown; the simulator's keys and ciphers stay as they are."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._known = {each.name: each for each in _of_version(device)}

    @staticmethod
    def node(device: Device) -> MenuNode:
        """Its command tree."""
        settings = Verb("set", values(*(each.name for each in _of_version(device))))
        return MenuNode(verbs={"print": _PRINT, "get": _GET, "set": settings})

    def _kept(self) -> dict[str, Any]:
        [item] = self._device.store.items.setdefault("ip/ssh", [{}])
        return item

    def row(self) -> Row:
        """The settings."""
        return {name: self._kept().get(name, each.default) for name, each in self._known.items()}

    async def execute(self, call: Call) -> Value:
        """Also ``set``."""
        if call.command.verb != "set":
            return await super().execute(call)
        given = {name: self._known[name].parse(value) for name, value in call.arguments.items()}
        self._kept().update(given)
        self._device.store.dirty = True
        return None


def _of_version(device: Device) -> list[Property]:
    version = device.settings.version
    return [each for each in _SSH if each.since <= version < each.until]


class PackageMenu(Table):
    """``/system/package``."""

    layout = printing.Layout(
        detail=("name", "version"),
        brief=("name", "version"),
        quoted=frozenset({"name", "version"}),
        flags={"X": "disabled"},
    )
    properties = frozenset({".id", "name", "version", "disabled"})

    def __init__(self, device: Device) -> None:
        self._device = device

    @staticmethod
    def node() -> MenuNode:
        """Its command tree."""
        listing = Verb("print", PRINT_PARAMETERS, filters=True)
        return MenuNode(
            verbs={"print": listing, "find": FIND, "get": GET},
            properties=PackageMenu.properties,
        )

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """The installed packages."""
        settings = self._device.settings
        names = ["routeros", *(["rose-storage"] if settings.rose_storage else [])]
        version = settings.version_text.split(" ")[0]
        return [
            {".id": Id(f"*{number}"), "name": name, "version": version, "disabled": False}
            for number, name in enumerate(names, start=1)
            if wanted_name in (None, name)
        ]
