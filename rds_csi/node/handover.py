"""Which of a volume's hand-overs the connection and the mounts on this node belong to.

A node that is cut off loses the volume to another one (force-detach), and its own mount stays.
Once the volume is given back, the kernel reconnects by itself and the mount looks as well as
ever. But its caches are of the time before: what it writes back destroys what the other node
has written. So the controller counts the hand-overs (``generation`` of
:class:`rds_csi.model.record.Record`), the staging record keeps the number, and what was made under
another one is given to nobody until it is unstaged. Nothing of it is changed meanwhile.

The record gets the number once the connection was made under it. So a crash between the two
leaves the older one, and an idle connection is made anew once more.
"""

from dataclasses import replace

import structlog

from rds_csi.errors import FailedPrecondition
from rds_csi.node.connected import Volumes
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.uses import Uses

log = structlog.get_logger(__name__)

RESTART = (
    "stop the pods that use it on this node, so that it is unstaged; it is connected anew when "
    "they start again. Nothing was changed"
)


class Handovers:
    """Keeps what is of another generation from being used."""

    def __init__(self, *, volumes: Volumes, uses: Uses, store: StagingStore) -> None:
        self._volumes = volumes
        self._uses = uses
        self._store = store

    async def begin(self, volume: str, generation: int | None, record: StagedVolume | None) -> None:
        """Make sure that what a stage finds connected is of ``generation``.

        An older connection that nothing uses is taken down: neither its session nor its page
        cache are used again. Raises :class:`FailedPrecondition` where it is in use, or where the
        call is of an older one than the connection.

        Where nothing is connected, there is nothing to keep apart: a record that a reboot left may
        name a later generation than an RDS that was restored from a backup, and nobody would ever
        ask for an unstage.
        """
        if not (why := mismatch(record, generation)):
            return
        nqns = self._volumes.nqns(volume)
        places = self._uses.places(volume)
        if places or (nqns and _outdated(record, generation)):
            await self._refuse(volume, generation, record, why, places)
        if nqns:
            log.warning("connected under another generation", volume=volume, why=why)
            await self._uses.disconnect(volume, nqns)

    async def require(
        self, volume: str, generation: int | None, record: StagedVolume | None
    ) -> None:
        """Raise :class:`FailedPrecondition` unless what is staged is of ``generation``."""
        if why := mismatch(record, generation):
            await self._refuse(volume, generation, record, why, self._uses.places(volume))

    async def _refuse(
        self,
        volume: str,
        generation: int | None,
        record: StagedVolume | None,
        why: str,
        places: list[str],
    ) -> None:
        if record is not None and record.staged and not _outdated(record, generation):
            await self._note(replace(record, superseded=generation), record)
        at = f"mounted at {', '.join(places[:5])}" if places else "connected"
        raise FailedPrecondition(
            f"it is {at} since another of its hand-overs: {why}", volume=volume, advice=RESTART
        )

    async def _note(self, noted: StagedVolume, record: StagedVolume) -> None:
        """Keep what the call has told, for health and growth, which are told no generation."""
        if noted == record:
            return
        try:
            await self._store.write(noted)
        except OSError as error:
            log.warning("not noted in its record", volume=noted.volume, error=str(error))


def mismatch(record: StagedVolume | None, generation: int | None) -> str:
    """Why what is here is not of ``generation``; empty where it is, or where none is named.

    A context without a generation is of a controller that did not count yet. 0 is that of a
    volume which has not been handed over since they are counted: a record without one fits it.
    """
    if generation is None:
        return ""
    if _outdated(record, generation):
        return f"this call is of generation {generation}, an outdated one"
    known = record.generation if record is not None else None
    if known == generation or (known is None and generation == 0):
        return ""
    began = "on record is no generation" if known is None else f"on record is generation {known}"
    return f"{began}, and it is at {generation} now; another node may have written to it since"


def _outdated(record: StagedVolume | None, generation: int | None) -> bool:
    """Whether a later generation is known here than that of the call."""
    if record is None or generation is None:
        return False
    return max(record.generation or 0, record.superseded or 0) > generation
