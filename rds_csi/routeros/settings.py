"""How to reach the RDS, and the keys that prove either side."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import asyncssh

from rds_csi.config import ControllerConfig
from rds_csi.errors import NotAuthorised, NotReady

CIPHERS: Final = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-ctr",
    "chacha20-poly1305@openssh.com",
)
"""AES-GCM first: twice as fast here as the library's own first choice."""

_RSA_SIGNATURES: Final = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How to reach the RDS. Times in seconds, sizes in bytes.

    ``host_keys`` are the RDS's public host keys, as OpenSSH writes them or as lines of a
    ``known_hosts`` file; several while a key is replaced. ``insecure_accept_any_host_key`` is
    for development: it lets anybody pose as the RDS and says so at each connect.
    ``channels`` bounds what runs at once: a real RDS hung with 19 new sessions on a connection.
    ``reconnect_limit`` is the longest pause between two attempts to connect. ``maximum_output``
    is what a reply may have: that of 10,000 volumes has half of it, and what is made of it fits
    into the memory that the chart gives a controller.
    """

    host: str
    user: str
    key_file: Path
    port: int = 22
    host_keys: tuple[str, ...] = field(default=(), repr=False)
    key_passphrase: str = field(default="", repr=False)
    insecure_accept_any_host_key: bool = False
    channels: int = 8
    connect_timeout: float = 10.0
    login_timeout: float = 15.0
    command_timeout: float = 90.0
    keepalive_interval: float = 10.0
    keepalive_count: int = 2
    close_timeout: float = 30.0
    reconnect_limit: float = 10.0
    maximum_output: int = 16 * 1024**2

    @classmethod
    def of(cls, config: ControllerConfig) -> Self:
        """The settings of a controller's link to its RDS."""
        return cls(
            host=config.rds_address,
            port=config.rds_port,
            user=config.rds_user,
            key_file=config.rds_key_file,
            host_keys=config.rds_host_keys,
            insecure_accept_any_host_key=config.rds_accept_any_host_key,
            channels=config.rds_channels,
        )

    def __post_init__(self) -> None:
        """Refuse settings that would trust anybody, or nobody."""
        if self.channels < 1:
            raise NotReady("at least one channel to the RDS is needed")
        if not self.insecure_accept_any_host_key:
            trusted_keys(self.host_keys)


def trusted_keys(texts: tuple[str, ...]) -> list[asyncssh.SSHKey]:
    """The pinned host keys.

    Host patterns of ``known_hosts`` lines are passed over: all keys are for the one RDS.
    Raises :class:`NotReady` where there is none, or one that cannot be read.
    """
    keys: list[asyncssh.SSHKey] = []
    for line in "\n".join(texts).splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith("@"):
            raise NotReady(f"a host key marked {words[0]} is not supported: pin the key itself")
        try:
            keys.append(asyncssh.import_public_key(" ".join(words[_key_type(words) :][:2])))
        except asyncssh.KeyImportError as error:
            raise NotReady(
                f"a pinned host key of the RDS cannot be read: {error}",
                advice="expected like: ssh-ed25519 AAAA...",
            ) from None
    if not keys:
        raise NotReady(
            "no host key of the RDS is pinned: anybody on the network could pose as it",
            advice="ssh-keyscan prints it; compare it with the RDS before trusting it",
        )
    return keys


def need_no_local_user() -> None:
    """Let this process reach an RDS although nobody knows its user.

    asyncssh asks for the local user's name and home whatever it is told, and gives up where there
    is neither a variable nor an entry in passwd, as in a container. Neither is used for anything:
    RouterOS's user, the keys and the trust are ours to say.
    """
    for name, value in (("LOGNAME", "rds-csi"), ("HOME", "/nonexistent")):
        if not os.environ.get(name):
            os.environ[name] = value


def _key_type(words: list[str]) -> int:
    types = ("ssh-", "ecdsa-", "sk-")
    return next((index for index, word in enumerate(words) if word.startswith(types)), 0)


def host_key_algorithms(keys: list[asyncssh.SSHKey]) -> list[str]:
    """The signature algorithms of the pinned keys: else the RDS may show a key of another type."""
    algorithms: list[str] = []
    for key in keys:
        name = key.get_algorithm()
        algorithms += _RSA_SIGNATURES if name == "ssh-rsa" else (name,)
    return list(dict.fromkeys(algorithms))


def client_key(settings: SessionSettings) -> asyncssh.SSHKey:
    """The private key, read anew at each connect, so that a replaced one counts at once."""
    return read_client_key(settings.key_file, settings.key_passphrase)


def read_client_key(path: Path, passphrase: str = "") -> asyncssh.SSHKey:
    """The private key in a file.

    Raises :class:`NotAuthorised` where it is missing, unreadable, open to others, or no such key.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise NotAuthorised(f"the key file {path} is not a file")
        # A Kubernetes secret with fsGroup is readable by the group.
        if stat.S_IMODE(mode) & (stat.S_IRWXO | stat.S_IWGRP):
            raise NotAuthorised(
                f"the key file {path} has mode {stat.S_IMODE(mode):04o}: others can use it",
                advice="chmod 600, or defaultMode: 0400 of the secret's volume",
            )
        content = path.read_bytes()
    except OSError as error:
        raise NotAuthorised(f"the key file {path} cannot be read: {error.strerror}") from None
    try:
        return asyncssh.import_private_key(content, passphrase or None)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, UnicodeDecodeError) as error:
        # Without the library's text and cause: neither may carry anything of the key.
        if not passphrase and str(error).startswith("Passphrase must be specified"):
            raise NotAuthorised(
                f"the key file {path} is protected by a passphrase, which nobody is there to enter",
                advice="ssh-keygen -p -N '' -f FILE takes it off",
            ) from None
        raise _no_private_key(path, content) from None


def _no_private_key(path: Path, content: bytes) -> NotAuthorised:
    """What the file holds instead."""
    try:
        asyncssh.import_public_key(content)
    except (asyncssh.KeyImportError, UnicodeDecodeError):
        return NotAuthorised(
            f"the key file {path} holds no private key that can be used",
            advice="an OpenSSH key is expected, or one in PKCS#8 form if it has a passphrase "
            "(ssh-keygen -p -m PKCS8)",
        )
    return NotAuthorised(
        f"the key file {path} holds a public key, and the private one is needed",
        advice="it is the file of the same name without .pub",
    )
