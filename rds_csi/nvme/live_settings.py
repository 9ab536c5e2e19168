"""Whether a connection is what was asked for: read back from the kernel, setting by setting.

That ``nvme connect`` ended with 0 says nothing of the settings: nvme-cli takes some from files of
its own, each version in another way, and drops what it takes for unlimited. A connection that
gives up after ten minutes, where "never" was promised, looks well until the next outage.

The attributes are those of ``/sys/class/nvme/nvmeX`` (drivers/nvme/host/sysfs.c, fabrics.c).
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from rds_csi.errors import ConnectFailed, ConnectRejected
from rds_csi.model.contexts import Endpoint
from rds_csi.model.host_identity import HostIdentity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import TRANSPORT, kernel_ctrl_loss_tmo, kernel_fast_io_fail_tmo
from rds_csi.nvme.sysfs import Controller, Sysfs

log = structlog.get_logger(__name__)

OFF: Final = "off"
"""What the kernel shows for a timer without an end."""
RECONNECT_DELAY: Final = 10
"""The kernel's own (NVMF_DEF_RECONNECT_DELAY, fabrics.h), where none is asked for."""

Shown = Callable[[str], str]
"""An attribute of a controller as sysfs shows it; empty where it shows none."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an attribute has to show. ``at_most``: a target may grant less than was asked for."""

    attribute: str
    values: tuple[str, ...]
    at_most: bool = False

    def holds(self, found: str) -> bool:
        """Whether the attribute may show this."""
        return found in self.values or (self.at_most and self.falls_short(found))

    def falls_short(self, found: str) -> bool:
        """Whether less was granted."""
        return self.at_most and found.isdigit() and 0 < int(found) < int(self.values[0])


def _ctrl_loss_tmo(config: ConnectionConfig) -> Expected | None:
    if config.ctrl_loss_tmo == 0:
        return None
    if config.ctrl_loss_tmo < 0:
        return Expected("ctrl_loss_tmo", (OFF,))
    # The kernel keeps a number of attempts, and shows the time they take.
    delay = config.reconnect_delay or RECONNECT_DELAY
    return Expected("ctrl_loss_tmo", (str(-(-kernel_ctrl_loss_tmo(config) // delay) * delay),))


def _reconnect_delay(config: ConnectionConfig) -> Expected | None:
    if config.reconnect_delay <= 0:
        return None
    return Expected("reconnect_delay", (str(config.reconnect_delay),))


def _keep_alive_tmo(config: ConnectionConfig) -> Expected | None:
    return Expected("kato", (str(config.keep_alive_tmo),)) if config.keep_alive_tmo > 0 else None


def _fast_io_fail_tmo(config: ConnectionConfig) -> Expected:
    if config.fast_io_fail_tmo is None:
        # Kernels before 5.11 neither have nor show it.
        return Expected("fast_io_fail_tmo", (OFF, ""))
    return Expected("fast_io_fail_tmo", (str(kernel_fast_io_fail_tmo(config)),))


def _nr_io_queues(config: ConnectionConfig) -> Expected | None:
    if config.nr_io_queues <= 0:
        return None
    # The admin queue is one more.
    return Expected("queue_count", (str(config.nr_io_queues + 1),), at_most=True)


def _queue_size(config: ConnectionConfig) -> Expected | None:
    if config.queue_size <= 0:
        return None
    return Expected("sqsize", (str(config.queue_size - 1),), at_most=True)


EXPECTED: Final[Mapping[str, Callable[[ConnectionConfig], Expected | None]]] = {
    "ctrl_loss_tmo": _ctrl_loss_tmo,
    "reconnect_delay": _reconnect_delay,
    "keep_alive_tmo": _keep_alive_tmo,
    "fast_io_fail_tmo": _fast_io_fail_tmo,
    "nr_io_queues": _nr_io_queues,
    "queue_size": _queue_size,
}
"""Each field of :class:`ConnectionConfig`: what shows it, or None where nothing is asked for."""


class Settings:
    """Reads the settings of this host's connections back."""

    def __init__(self, sysfs: Sysfs, host: HostIdentity) -> None:
        self._sysfs = sysfs
        self._host = host

    def require(
        self,
        controllers: Sequence[Controller],
        endpoint: Endpoint,
        config: ConnectionConfig,
        *,
        volume: str,
    ) -> None:
        """Raise :class:`ConnectRejected` if one of them, just made, is not as was asked for.

        :class:`ConnectFailed` if there is none any more.
        """
        gone = not controllers
        for controller in controllers:
            shown = partial(self._sysfs.read, controller.name)
            wrong, less = differences(shown, config)
            wrong = [*misdirected(shown, endpoint, self._host), *wrong]
            gone = gone or not shown("subsysnqn")
            if wrong and not gone:
                raise ConnectRejected(
                    f"the connection came out with other settings: {'; '.join(wrong)}",
                    volume=volume,
                    advice="nvme-cli or the kernel did not take them, or /etc/nvme/config.json of "
                    "the node says otherwise; see `nvme version`",
                )
            if less:
                log.info("target grants less", volume=volume, nqn=endpoint.nqn, granted=less)
        if gone:
            raise ConnectFailed("the connection is gone again", volume=volume)

    def compare(
        self, controllers: Sequence[Controller], config: ConnectionConfig, *, volume: str
    ) -> None:
        """Log what is otherwise about connections that stand.

        They are left as they are: settings count for new connections, and to make one anew
        would take the device from whoever has it open, which nobody can see.
        """
        for controller in controllers:
            wrong, _ = differences(partial(self._sysfs.read, controller.name), config)
            if wrong:
                log.warning(
                    "connection stands with other settings, until the volume is next unstaged",
                    volume=volume,
                    nqn=controller.nqn,
                    differences=wrong,
                )


def differences(shown: Shown, config: ConnectionConfig) -> tuple[list[str], list[str]]:
    """What of the settings is wrong, and of what the target granted less; in words."""
    wrong, less = [], []
    for name, expected_of in EXPECTED.items():
        expected = expected_of(config)
        if expected is None:
            continue
        found = shown(expected.attribute)
        words = _words(name, expected.values[0], found, attribute=expected.attribute)
        if not expected.holds(found):
            wrong.append(words)
        elif expected.falls_short(found):
            less.append(words)
    return wrong, less


def misdirected(shown: Shown, endpoint: Endpoint, host: HostIdentity) -> list[str]:
    """What of a connection's two ends is not as was asked for, in words."""
    words = (word.partition("=") for word in shown("address").split(","))
    address = {key: value for key, _, value in words}
    ends = {
        "transport": (TRANSPORT, shown("transport")),
        "hostnqn": (host.nqn, shown("hostnqn")),
        "hostid": (host.hostid, shown("hostid")),
        "subsysnqn": (endpoint.nqn, shown("subsysnqn")),
        "traddr": (endpoint.address, _plain(address.get("traddr", ""))),
        "trsvcid": (str(endpoint.port), address.get("trsvcid", "")),
        # Nobody asks for these: the routes of the node decide.
        "host_traddr": ("", address.get("host_traddr", "")),
        "host_iface": ("", address.get("host_iface", "")),
    }
    return [_words(name, asked, found) for name, (asked, found) in ends.items() if found != asked]


def _words(name: str, wanted: str, found: str, *, attribute: str = "") -> str:
    of = f" ({attribute})" if attribute not in ("", name) else ""
    return f"{name}{of} is {found or 'not shown'}, asked for was {wanted or 'none'}"


def _plain(address: str) -> str:
    """The address as we write it: IPv6 has many spellings."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
