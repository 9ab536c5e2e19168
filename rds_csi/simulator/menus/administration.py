"""Menus of settings: users and their groups and keys, services, the firewall.

What is set is checked, kept and shown. Users count (see ``access.py``): who logs in as one of
them has the rights of that group. Services and firewall rules have no effect here.
"""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import asyncssh

from rds_csi.simulator.device.access import POLICIES
from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.files import normalise
from rds_csi.simulator.device.properties import Form, Property
from rds_csi.simulator.device.texts import (
    ALREADY_EXISTS,
    BAD_KEY,
    NO_SUCH_FILE,
    NO_SUCH_ITEM,
    bad_enum,
    bad_value,
)
from rds_csi.simulator.language.grammar import (
    FIND,
    GET,
    PRINT,
    REMOVE,
    MenuNode,
    Parameter,
    Verb,
    values,
    verbs,
)
from rds_csi.simulator.language.interpreter import Call, PromptSignal, Row
from rds_csi.simulator.language.values import Id, RuntimeFault, Value, from_text, text_of, to_text
from rds_csi.simulator.menus.printing import Layout
from rds_csi.simulator.menus.table import Table, references

_AVAILABLE_FROM: Final = (7, 24)
_PASSWORD: Final = "password"  # noqa: S105 - the name of a property


@dataclass(frozen=True, slots=True)
class Kind:
    """One menu: its place, its properties, and which items a device has from the start."""

    path: tuple[str, ...]
    properties: tuple[Property, ...]
    name: str = "name"
    """The property that says which item it is; no two have the same. Empty: any may."""
    preset: tuple[dict[str, Value], ...] = ()
    fixed: bool = False
    """Items can be changed, and neither added nor removed."""
    extra: tuple[Verb, ...] = ()
    check: Callable[[Device, dict[str, Value]], None] = field(default=lambda _device, _given: None)
    """Raises RuntimeFault where the values given do not fit the device."""

    @property
    def key(self) -> str:
        """Its name in the device's state."""
        return "/".join(self.path)


class StoredMenu(Table):
    """The items of one kind."""

    def __init__(self, device: Device, kind: Kind) -> None:
        self._device = device
        self._kind = kind
        self.name_property = kind.name  # type: ignore[misc]  # per menu here, not per class
        node = self.node(device, kind)
        self.properties = node.properties
        known = [each for each in kind.properties if each.name in node.properties]
        shown = tuple(each.name for each in known if each.name != _PASSWORD)
        quoted = frozenset(each.name for each in known if each.form is Form.TEXT)
        self.layout = Layout(detail=shown, brief=shown, quoted=quoted, flags={"X": "disabled"})

    @staticmethod
    def node(device: Device, kind: Kind) -> MenuNode:
        """The command tree of the menu in the device's version."""
        version = device.settings.version
        known = [each for each in kind.properties if each.since <= version < each.until]
        parameters = tuple(Parameter(each.name) for each in known)
        members = [
            PRINT,
            FIND,
            GET,
            Verb("set", (*values("numbers"), *parameters), unnamed=("numbers",)),
            *kind.extra,
        ]
        if not kind.fixed:
            members += [Verb("add", parameters), REMOVE]
        return MenuNode(
            verbs=verbs(version, members),
            properties=frozenset({".id", *(each.name for each in known)}),
        )

    @property
    def _items(self) -> list[dict[str, Any]]:
        return stored_items(self._device, self._kind)

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """The items, with their defaults."""
        defaults = {each.name: each.default for each in self._kind.properties}
        for item in list(self._items):
            if wanted_name in (None, item.get(self._kind.name)) or not self._kind.name:
                row = defaults | item | {".id": Id(f"*{item['id']:X}")}
                yield {name: row[name] for name in row if name in self.properties}

    def _given(self, call: Call) -> dict[str, Value]:
        given: dict[str, Value] = {
            each.name: each.parse(call.arguments[each.name])
            for each in self._kind.properties
            if each.name in call.arguments
        }
        self._kind.check(self._device, given)
        return given

    async def do_add(self, call: Call) -> Value:
        """A new item; its id is the value."""
        return self._add(self._given(call))

    def _add(self, given: dict[str, Value]) -> Id:
        name = self._kind.name
        if name and any(item.get(name) == given.get(name) for item in self._items):
            raise RuntimeFault(ALREADY_EXISTS)
        number = 1 + max((item["id"] for item in self._items), default=0)
        self._items.append({"id": number, **given})
        self._device.store.dirty = True
        return Id(f"*{number:X}")

    async def do_set(self, call: Call) -> Value:
        """Change items; an empty ``[find]`` changes nothing and succeeds."""
        given = self._given(call)
        for item in self._chosen(call):
            item.update(given)
        self._device.store.dirty = True
        return None

    async def do_remove(self, call: Call) -> Value:
        """Remove items; an empty ``[find]`` succeeds."""
        for item in self._chosen(call):
            self._items.remove(item)
        self._device.store.dirty = True
        return None

    async def do_move(self, call: Call) -> Value:
        """Put items, in their order, before the one at a place (``/ip/firewall/filter``)."""
        chosen = self._chosen(call)
        try:
            place = int(text_of(call.arguments.get("destination", "")))
        except ValueError:
            raise RuntimeFault(bad_value("destination"), argument="destination") from None
        if chosen and not 0 <= place < len(self._items):
            raise RuntimeFault(NO_SUCH_ITEM)
        before = [item for item in self._items[:place] if item not in chosen]
        behind = [item for item in self._items[place:] if item not in chosen]
        self._items[:] = [*before, *chosen, *behind]
        self._device.store.dirty = True
        return None

    async def do_import(self, call: Call) -> Value:
        """Take the key of a file for a user (``/user/ssh-keys``)."""
        name = normalise(text_of(call.arguments.get("public-key-file", "")))
        try:
            text = self._device.files.path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise RuntimeFault(NO_SUCH_FILE) from None
        given: dict[str, Value] = {"key": from_text(text.strip())}
        given["user"] = text_of(call.arguments.get("user", ""))
        self._kind.check(self._device, given)
        self._add(given)
        return None

    def _chosen(self, call: Call) -> list[dict[str, Any]]:
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        ids = {text_of(row[".id"]) for row in references(self, call.arguments["numbers"])}
        return [item for item in self._items if f"*{item['id']:X}" in ids]


def stored_items(device: Device, kind: Kind) -> list[dict[str, Any]]:
    """The items of a kind; a device that never had any has the preset ones."""
    store = device.store
    if kind.key not in store.items:
        store.items[kind.key] = [
            {"id": number, **item} for number, item in enumerate(kind.preset, start=1)
        ]
    return store.items[kind.key]


def _networks(given: dict[str, Value], *names: str) -> None:
    for name in names:
        for part in filter(None, text_of(given.get(name, "")).split(",")):
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError:
                raise RuntimeFault(bad_value(name), argument=name) from None


def _check_group(device: Device, given: dict[str, Value]) -> None:
    del device
    for policy in filter(None, text_of(given.get("policy", "")).split(",")):
        if policy.removeprefix("!") not in POLICIES:
            raise RuntimeFault(bad_enum("policy"), argument="policy")


def _check_user(device: Device, given: dict[str, Value]) -> None:
    groups = {item["name"] for item in stored_items(device, GROUPS)}
    if "group" in given and given["group"] not in groups:
        raise RuntimeFault(bad_enum("group"), argument="group")
    _networks(given, "address")


def _check_key(device: Device, given: dict[str, Value]) -> None:
    users = {item["name"] for item in stored_items(device, USERS)}
    if "user" in given and given["user"] not in users:
        raise RuntimeFault(bad_enum("user"), argument="user")
    if "key" in given:
        try:
            key = asyncssh.import_public_key(to_text(text_of(given["key"])))
        except asyncssh.KeyImportError:
            raise RuntimeFault(BAD_KEY) from None
        if key.get_algorithm() not in {"ssh-ed25519", "ssh-rsa"}:
            raise RuntimeFault(BAD_KEY)
        given.setdefault("info", from_text(key.get_comment() or ""))


def _check_service(device: Device, given: dict[str, Value]) -> None:
    del device
    _networks(given, "address", "available-from")


def _check_rule(device: Device, given: dict[str, Value]) -> None:
    del device
    _networks(given, "src-address")


_COMMENT: Final = Property("comment")
_DISABLED: Final = Property("disabled", Form.YES_NO, default=False)
_PORT: Final = Property("port", Form.NUMBER, 22, low=1, high=65535)
_SERVICES: Final = {"ftp": 21, "ssh": 22, "telnet": 23, "www": 80, "winbox": 8291, "api": 8728}

GROUPS: Final = Kind(
    ("user", "group"),
    (Property("name"), Property("policy", Form.PATH), _COMMENT),
    preset=({"name": "full", "policy": ",".join(POLICIES)},),
    check=_check_group,
)
USERS: Final = Kind(
    ("user",),
    (
        Property("name"),
        Property("group", Form.PATH),
        Property("address"),
        Property(_PASSWORD),
        _COMMENT,
        _DISABLED,
    ),
    preset=({"name": "admin", "group": "full"},),
    check=_check_user,
)
KEYS: Final = Kind(
    ("user", "ssh-keys"),
    (Property("user", Form.PATH), Property("key"), Property("info", since=(7, 21))),
    name="",
    extra=(Verb("import", values("public-key-file", "user")),),
    check=_check_key,
)
SERVICES: Final = Kind(
    ("ip", "service"),
    (
        Property("name", Form.PATH, writable=False),
        _PORT,
        Property("address", until=_AVAILABLE_FROM),
        Property("available-from", since=_AVAILABLE_FROM),
        _DISABLED,
    ),
    preset=tuple({"name": name, "port": port} for name, port in _SERVICES.items()),
    fixed=True,
    check=_check_service,
)
RULES: Final = Kind(
    ("ip", "firewall", "filter"),
    (
        Property("chain", Form.PATH),
        Property("action", Form.ENUM, "accept", choices=("accept", "drop", "reject")),
        Property("protocol", Form.PATH),
        Property("dst-port", Form.PATH),
        Property("src-address", Form.PATH),
        Property("in-interface", Form.PATH),
        _COMMENT,
        _DISABLED,
    ),
    name="",
    extra=(Verb("move", values("numbers", "destination"), unnamed=("numbers", "destination")),),
    check=_check_rule,
)
KINDS: Final = (GROUPS, USERS, KEYS, SERVICES, RULES)
