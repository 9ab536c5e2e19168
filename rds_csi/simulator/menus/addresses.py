"""``/ip/firewall/address-list``: entries that may vanish by themselves."""

import asyncio
import math
from collections.abc import Iterable
from typing import Any, Final

from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.properties import Form, Property
from rds_csi.simulator.device.texts import ALREADY_HAVE, bad_value
from rds_csi.simulator.language.interpreter import Row
from rds_csi.simulator.language.values import Id, RuntimeFault, Value, parse_duration, text_of
from rds_csi.simulator.menus.administration import Kind, StoredMenu

_TIMEOUT: Final = "timeout"
_EXPIRES: Final = "expires"


def _check(_device: Device, given: dict[str, Value]) -> None:
    if given.get(_TIMEOUT) and parse_duration(text_of(given[_TIMEOUT])) is None:
        raise RuntimeFault(bad_value(_TIMEOUT), argument=_TIMEOUT)


ADDRESSES: Final = Kind(
    ("ip", "firewall", "address-list"),
    (
        Property("list"),
        Property("address", Form.PATH),
        Property(_TIMEOUT, Form.PATH),
        Property("dynamic", Form.YES_NO, default=False, writable=False),
        Property("comment"),
        Property("disabled", Form.YES_NO, default=False),
    ),
    name="",
    check=_check,
)


class AddressMenu(StoredMenu):
    """Entries with a timeout are dynamic: dropped when it is over, and by a boot."""

    def __init__(self, device: Device) -> None:
        super().__init__(device, ADDRESSES)

    @property
    def _items(self) -> list[dict[str, Any]]:
        items = super()._items
        items[:] = [item for item in items if self._left(item) > 0]
        return items

    def _left(self, item: dict[str, Any]) -> float:
        """Seconds that are left of an entry."""
        if _EXPIRES not in item:
            return math.inf
        boot, moment = item[_EXPIRES]
        if boot != self._device.store.boots:
            return 0
        return float(moment - asyncio.get_running_loop().time())

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """The entries, with what is left of their timeouts."""
        left = {f"*{item['id']:X}": self._left(item) for item in self._items}
        for row in super().rows(wanted_name):
            seconds = left.get(text_of(row[".id"]), math.inf)
            dynamic = seconds < math.inf
            yield {
                **row,
                _TIMEOUT: f"{math.ceil(seconds)}s" if dynamic else "",
                "dynamic": dynamic,
            }

    def _add(self, given: dict[str, Value]) -> Id:
        place = (given.get("list"), given.get("address"))
        if any((item.get("list"), item.get("address")) == place for item in self._items):
            raise RuntimeFault(ALREADY_HAVE)
        item: dict[str, Any] = {"id": self._device.store.new_id(), **given}
        duration = parse_duration(text_of(given.get(_TIMEOUT, "")))
        if duration is not None:
            now = asyncio.get_running_loop().time()
            item[_EXPIRES] = (self._device.store.boots, now + duration.milliseconds / 1000)
        self._items.append(item)
        return Id(f"*{item['id']:X}")
