"""Users: who may log in with which key, from where, and what the group's policies allow."""

import ipaddress
from typing import Final

import asyncssh

from rds_csi.simulator.device.store import Store
from rds_csi.simulator.language.syntax import Command
from rds_csi.simulator.language.values import to_text

POLICIES: Final = (
    *("local", "telnet", "ssh", "ftp", "reboot", "read", "write", "policy", "test", "winbox"),
    *("password", "web", "sniff", "sensitive", "api", "romon", "rest-api"),
)
_READS: Final = frozenset({"print", "find", "get", "monitor-traffic"})
_ITSELF: Final = frozenset({"user"})
"""Menus whose changes need ``policy``: who may change users may become anybody."""

Rights = frozenset[str]


def rights_of(store: Store, user: str, key: asyncssh.SSHKey, peer: str) -> Rights | None:
    """The policies of the user who shows this key from that address; None: no login."""
    for item in store.items.get("user", []):
        if item["name"] == user and not item.get("disabled", False):
            keys = [
                each["key"] for each in store.items.get("user/ssh-keys", []) if each["user"] == user
            ]
            known = {asyncssh.import_public_key(to_text(text)).public_data for text in keys}
            rights = _granted(store, item["group"])
            if (
                key.public_data in known
                and "ssh" in rights
                and _from(item.get("address", ""), peer)
            ):
                return rights
    return None


def _granted(store: Store, group: str) -> Rights:
    for item in store.items.get("user/group", []):
        if item["name"] == group:
            words = item.get("policy", "").split(",")
            return frozenset(words) & frozenset(POLICIES)
    return frozenset()


def _from(allowed: str, peer: str) -> bool:
    networks = [ipaddress.ip_network(part, strict=False) for part in allowed.split(",") if part]
    return not networks or any(ipaddress.ip_address(peer) in network for network in networks)


def needed(command: Command) -> str:
    """The policy a command of a menu needs (inferred from the manual's list of policies)."""
    if command.verb in _READS:
        return "read"
    return "policy" if command.path[0] in _ITSELF else "write"
