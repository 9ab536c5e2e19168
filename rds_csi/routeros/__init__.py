"""The RDS as the driver sees it: volumes, over one SSH connection to RouterOS."""

from rds_csi.routeros.boots import Boot, Boots
from rds_csi.routeros.disk import Capacity, Disk
from rds_csi.routeros.disk_health import problems
from rds_csi.routeros.disks import Disks
from rds_csi.routeros.failures import size_unknown
from rds_csi.routeros.session import Session
from rds_csi.routeros.settings import SessionSettings
from rds_csi.routeros.version import System

__all__ = [
    "Boot",
    "Boots",
    "Capacity",
    "Disk",
    "Disks",
    "Session",
    "SessionSettings",
    "System",
    "problems",
    "size_unknown",
]
