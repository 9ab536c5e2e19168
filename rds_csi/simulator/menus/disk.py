"""``/disk``."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.properties import BY_NAME, SECRETS, Form, in_version
from rds_csi.simulator.device.store import Disk, Pool
from rds_csi.simulator.language.grammar import (
    FIND,
    GET,
    PRINT,
    REMOVE,
    Kind,
    MenuNode,
    Parameter,
    Verb,
)
from rds_csi.simulator.language.interpreter import Call, PromptSignal, Row
from rds_csi.simulator.language.values import Id, RuntimeFault, Value, text_of
from rds_csi.simulator.menus.printing import Layout, grouped
from rds_csi.simulator.menus.table import Table, references

_HIDDEN: Final = frozenset(
    {"mount-point-template", "nvme-tcp-server-password", "comment", "disabled"}
)
_POOL_ONLY: Final = frozenset(
    {"fs-label", "fs-uuid", "free", "use", "mount-point", "raid-type", "state"}
)
_FLAGS: Final = {
    "X": "disabled",
    "B": "block-device",
    "M": "mounted",
    "r": "raid-member",
    "t": "nvme-tcp-export",
}
FLAG_NAMES: Final = frozenset({"disabled", "block-device", "mounted", "raid-member"})
_TRAFFIC: Final = (
    *("read-ops", "read-ops-per-second", "read-bytes", "read-rate", "read-merges", "read-time"),
    *("write-ops", "write-ops-per-second", "write-bytes", "write-rate", "write-merges"),
    *("write-time", "in-flight-ops", "active-time", "wait-time", "discard-ops", "discard-bytes"),
    *("discard-merges", "discard-time", "flush-ops", "flush-time"),
)


class DiskMenu(Table):
    """Pools and file disks."""

    name_property = "slot"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._properties = in_version(device.settings.version)
        self.properties = self.node(device).properties
        self._defaults: dict[str, Value] = {
            entry.name: entry.default for entry in self._properties if entry.name not in _POOL_ONLY
        } | {"block-device": True, "mounted": False, "raid-member": False}
        named = {form: set[str]() for form in Form}
        for entry in self._properties:
            named[entry.form].add(entry.name)
        self.layout = Layout(
            detail=tuple(entry.name for entry in self._properties if entry.name not in _HIDDEN),
            brief=("slot", "model", "fs", "size", "free", "use", "mount-point", "comment"),
            quoted=frozenset(named[Form.TEXT]),
            grouped=frozenset({"size", "free"}),
            rounded=frozenset({"file-size"}),
            percent=frozenset({"use"}),
            dashed=frozenset({"fs"}),
            flags=_FLAGS,
        )

    @staticmethod
    def node(device: Device) -> MenuNode:
        """The command tree of the menu in the device's version."""
        version = device.settings.version
        names = [entry.name for entry in in_version(version) if entry.writable]
        if not device.settings.rose_storage:
            names = [name for name in names if not name.startswith("nvme-tcp-")]
        parameters = tuple(Parameter(name) for name in names)
        numbers = Parameter("numbers")
        once = (numbers, Parameter("once", Kind.FLAG), Parameter("as-value", Kind.FLAG))
        all_verbs = (
            PRINT,
            FIND,
            GET,
            REMOVE,
            Verb("add", (*parameters, Parameter("copy-from"))),
            Verb("set", (numbers, *parameters), unnamed=("numbers",)),
            Verb("monitor-traffic", once, unnamed=("numbers",)),
        )
        readable = {entry.name for entry in in_version(version)} | FLAG_NAMES | {".id"}
        return MenuNode(
            verbs={verb.name: verb for verb in all_verbs}, properties=frozenset(readable)
        )

    # Rows

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """Pools first, then the disks that listings show by now."""
        store = self._device.store
        if isinstance(wanted_name, str):
            found = store.by_slot.get(wanted_name)
            return [self._row(found)] if found and self._visible(found) else []
        return self._all_rows()

    def _all_rows(self) -> Iterator[Row]:
        store = self._device.store
        for pool in list(store.pools.values()):
            yield self._row(pool)
        for disk in list(store.disks.values()):
            if self._visible(disk):
                yield self._row(disk)

    def _visible(self, entry: Disk | Pool) -> bool:
        return isinstance(entry, Pool) or self._device.visible(entry)

    def row_of(self, reference: Value) -> Row:
        """The item with that id or slot name."""
        return self._row(self._device.resolve(reference))

    def _row(self, entry: Disk | Pool) -> Row:
        values = self._pool_values(entry) if isinstance(entry, Pool) else self._disk_values(entry)
        if not values.keys() <= self.properties:
            # Set by a newer version than the one that runs now.
            values = {name: values[name] for name in values.keys() & self.properties}
        return values

    def _disk_values(self, disk: Disk) -> dict[str, Value]:
        mounted = self._device.mounted(disk)
        return (
            self._defaults
            | disk.properties
            | {
                ".id": Id(f"*{disk.id:X}"),
                "type": disk.type,
                "slot": disk.slot,
                "size": self._device.shown_size(disk),
                "file-size": disk.size,
                "sector-size": 512,
                "model": disk.properties.get("file-path", ""),
                "fs": self._device.file_system(disk),
                "mounted": mounted,
            }
            | ({"mount-point": disk.slot} if mounted else {})
        )

    def _pool_values(self, pool: Pool) -> dict[str, Value]:
        values: dict[str, Value] = {
            ".id": Id(f"*{pool.id:X}"),
            "type": "raid",
            "slot": pool.slot,
            "slot-default": "",
            "parent": "",
            "fs-label": pool.slot,
            "fs-uuid": f"{pool.id:08x}-{self._device.store.serial[:4]}",
            "fs": pool.fs,
            "model": "RAID0 striped",
            "size": pool.size,
            "mount-filesystem": True,
            "mount-read-only": False,
            "compress": False,
            "sector-size": 512,
            "raid-type": "0",
            "state": "clean",
            "nvme-tcp-export": False,
            "comment": pool.comment,
            "disabled": False,
            "block-device": True,
            "mounted": pool.mounted,
            "raid-member": False,
        }
        if pool.mounted:
            free = self._device.files.free(pool)
            values |= {
                "free": free,
                "use": 100 * (pool.size - free) // pool.size if pool.size else 0,
                "mount-point": pool.mount_point,
            }
        return values

    def shown(self, row: Row, names: Sequence[str] | None) -> dict[str, Value]:
        """What ``as-value`` gives: flags since 7.20, no secrets since 7.21, no empty comment."""
        shown = super().shown(row, names)
        version = self._device.settings.version
        for name in FLAG_NAMES if version < (7, 20) else ():
            shown.pop(name, None)
        for name in SECRETS if version >= (7, 21) else ():
            shown.pop(name, None)
        if not shown.get("comment"):
            shown.pop("comment", None)
        return shown

    # Changes

    def _given(self, call: Call) -> dict[str, Value]:
        return {
            name: BY_NAME[name].parse(value)
            for name, value in call.arguments.items()
            if name in BY_NAME
        }

    async def do_add(self, call: Call) -> Value:
        """A new disk; its id is the value."""
        given = self._given(call)
        if "copy-from" in call.arguments:
            # Settings only: neither the data nor what names the original.
            source = self._device.resolve(call.arguments["copy-from"])
            if isinstance(source, Disk):
                inherited = dict(source.properties) | {"type": source.type}
                given = inherited | given
        disk = await self._device.add_disk(given)
        return Id(f"*{disk.id:X}")

    async def do_set(self, call: Call) -> Value:
        """Change items; an empty ``[find]`` changes nothing and succeeds."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        for entry in self._entries(call):
            await self._device.change_disk(entry, self._given(call))
        return None

    async def do_remove(self, call: Call) -> Value:
        """Remove items, never their files; an empty ``[find]`` succeeds."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        for entry in self._entries(call):
            await self._device.remove_disk(entry)
        return None

    def _entries(self, call: Call) -> list[Disk | Pool]:
        rows = references(self, call.arguments["numbers"])
        return [self._device.resolve(row[".id"]) for row in rows]

    async def do_monitor_traffic(self, call: Call) -> Value:
        """Counters of one disk; the simulator measures no traffic, they read 0."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        rows = references(self, call.arguments["numbers"])
        if not call.flag("once"):
            raise RuntimeFault("action failed (6)")
        for row in rows:
            call.write(f"{'slot':>22}: {text_of(row['slot']):>15}")
            for name in _TRAFFIC:
                unit = "ms" if name.endswith("time") else "bps" if name.endswith("rate") else ""
                call.write(f"{name:>22}: {grouped(0) + unit:>15}")
            call.write("")
        return None
