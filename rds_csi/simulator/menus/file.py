"""``/file``: names have no leading slash here."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.files import FileEntry, normalise
from rds_csi.simulator.device.texts import NO_SUCH_FILE, POOL_FIXED, bad_enum
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
from rds_csi.simulator.language.values import Id, RuntimeFault, Value, text_of
from rds_csi.simulator.menus.printing import Layout
from rds_csi.simulator.menus.table import Table, references

_TIMES_CHANGED: Final = (7, 11)
"""``creation-time`` became ``last-modified`` around here."""
_IDS_CHANGED: Final = (7, 21)


class FileMenu(Table):
    """Files and folders."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.properties = self.node(device).properties
        modified = _time_name(device)
        self.layout = Layout(
            detail=("name", "type", "size", modified),
            brief=("name", "type", "size", modified),
            rounded=frozenset({"size"}),
        )

    @staticmethod
    def node(device: Device) -> MenuNode:
        """The command tree of the menu in the device's version."""
        all_verbs = (
            PRINT,
            FIND,
            GET,
            REMOVE,
            Verb(
                "add",
                (*values("name", "type", "contents"), Parameter("copy-from", until=(7, 18))),
            ),
            Verb("set", values("numbers", "name", "contents"), unnamed=("numbers",)),
            Verb("copy", values("number", "name"), unnamed=("number",), since=(7, 23)),
        )
        readable = {".id", "name", "type", "size", "contents", _time_name(device)}
        return MenuNode(
            verbs=verbs(device.settings.version, all_verbs), properties=frozenset(readable)
        )

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """All files, or the one of a name."""
        files = self._device.files
        if isinstance(wanted_name, str):
            try:
                entry = files.entry(normalise(wanted_name))
            except RuntimeFault:
                return []
            same = entry is not None and entry.name == wanted_name
            return [self._row(entry)] if entry and same and self._visible(entry) else []
        return [self._row(entry) for entry in files.entries() if self._visible(entry)]

    def _visible(self, entry: FileEntry) -> bool:
        lag = self._device.quirks.lag
        return not lag or entry.size is None or time.time() - entry.modified >= lag

    def _row(self, entry: FileEntry) -> Row:
        stars = "**" if self._device.settings.version >= _IDS_CHANGED else "*"
        moment = time.gmtime(entry.modified)
        modified = time.strftime("%Y-%m-%d %H:%M:%S", moment)
        if _time_name(self._device) == "creation-time":
            modified = time.strftime("%b/%d/%Y %H:%M:%S", moment).lower()
        row: dict[str, Value] = {
            ".id": Id(f"{stars}{entry.number:X}"),
            "name": entry.name,
            "type": entry.type,
        }
        if entry.size is not None:
            row["size"] = entry.size
        row[_time_name(self._device)] = modified
        return row

    async def do_add(self, call: Call) -> Value:
        """A new folder or file."""
        name = normalise(text_of(call.arguments.get("name", "")))
        files = self._device.files
        kind = text_of(call.arguments.get("type", "file"))
        if kind == "directory":
            files.add_directory(name)
        elif kind == "file":
            contents = text_of(call.arguments.get("contents", "")).encode("latin-1")
            files.write(name, contents, new=True)
        else:
            raise RuntimeFault(bad_enum("type"))
        entry = files.entry(name)
        return self._row(entry)[".id"] if entry else None

    async def do_set(self, call: Call) -> Value:
        """Rename a file, or replace what is in it."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        for row in references(self, call.arguments["numbers"]):
            name = text_of(row["name"])
            if "contents" in call.arguments:
                contents = text_of(call.arguments["contents"]).encode("latin-1")
                self._device.files.write(name, contents, new=False)
            if "name" in call.arguments:
                self._device.files.rename(name, normalise(text_of(call.arguments["name"])))
        return None

    async def do_remove(self, call: Call) -> Value:
        """Remove files; a folder goes with all that is in it."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        for row in references(self, call.arguments["numbers"]):
            if row["type"] == "disk":
                raise RuntimeFault(POOL_FIXED)
            self._device.files.remove(text_of(row["name"]))
        return None

    async def do_copy(self, call: Call) -> Value:
        """Copy a file; the session waits for it."""
        source = text_of(self.row_of(call.arguments.get("number"))["name"])
        target = normalise(text_of(call.arguments.get("name", "")))
        files = self._device.files
        entry = files.entry(source)
        if entry is None or entry.size is None:
            raise RuntimeFault(NO_SUCH_FILE)
        await asyncio.to_thread(files.copy, source, target)
        return None


def _time_name(device: Device) -> str:
    return "last-modified" if device.settings.version >= _TIMES_CHANGED else "creation-time"
