"""``/log``: what a boot leaves in it, and nothing else."""

from collections.abc import Iterable

from rds_csi.simulator.device.device import Device
from rds_csi.simulator.language.grammar import FIND, GET, PRINT, MenuNode, verbs
from rds_csi.simulator.language.interpreter import Row
from rds_csi.simulator.language.values import Id, Value
from rds_csi.simulator.menus.printing import Layout
from rds_csi.simulator.menus.table import Table

_PROPERTIES = ("time", "topics", "message")


class LogMenu(Table):
    """The log lies in memory: it begins with the boot. This device always goes down in order."""

    name_property = ".id"
    layout = Layout(detail=_PROPERTIES, brief=_PROPERTIES)
    properties = frozenset({".id", *_PROPERTIES})

    def __init__(self, device: Device) -> None:
        self._device = device

    @staticmethod
    def node(device: Device) -> MenuNode:
        """The command tree of the menu."""
        return MenuNode(
            verbs=verbs(device.settings.version, (PRINT, FIND, GET)), properties=LogMenu.properties
        )

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """The line of the boot; a device that was never down has none."""
        del wanted_name
        if self._device.store.boots > 1:
            yield {
                ".id": Id("*1"),
                "time": "00:00:00",
                "topics": "system,info",
                "message": "router rebooted",
            }
