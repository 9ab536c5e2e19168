"""``/system/clock``."""

import time
from typing import Final

from rds_csi.simulator.device.device import Device
from rds_csi.simulator.language.grammar import MenuNode
from rds_csi.simulator.language.interpreter import Row
from rds_csi.simulator.language.values import Duration
from rds_csi.simulator.menus.system import Single, single_node

_DATES_CHANGED: Final = (7, 10)


class ClockMenu(Single):
    """``/system/clock``: local time, as far from the machine's as the quirks say."""

    def __init__(self, device: Device) -> None:
        self._device = device

    @staticmethod
    def node() -> MenuNode:
        """Its command tree."""
        return single_node()

    def row(self) -> Row:
        """Date and time. To scripts, an offset west of Greenwich is a huge number."""
        quirks, version = self._device.quirks, self._device.settings.version
        moment = time.gmtime(time.time() + quirks.clock_error + quirks.gmt_offset)
        date = time.strftime("%Y-%m-%d", moment)
        if version < _DATES_CHANGED:
            date = time.strftime("%b/%d/%Y", moment).lower()
        seconds = (moment.tm_hour * 60 + moment.tm_min) * 60 + moment.tm_sec
        return {
            "time": Duration(seconds * 1000),
            "date": date,
            "time-zone-autodetect": False,
            "time-zone-name": "manual",
            "gmt-offset": quirks.gmt_offset % 2**32,
            "dst-active": False,
        }

    def printed(self, row: Row) -> Row:
        """With the offset as hours and minutes."""
        offset = self._device.quirks.gmt_offset
        hours, minutes = divmod(abs(offset) // 60, 60)
        return dict(row) | {"gmt-offset": f"{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"}
