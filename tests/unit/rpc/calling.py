"""Calling the services from a client: what the tests of the wire share."""

import asyncio

import grpc
import grpc.aio
import pytest

from rds_csi.rpc.identity import Identity

VOLUME = "pvc-1"
IDENTITY = Identity(name="csi.example.com", version="1", controller=True)


def delete(released, volume=VOLUME):
    return released.message("DeleteVolumeRequest")(volume_id=volume)


def get(released, volume=VOLUME):
    return released.message("ControllerGetVolumeRequest")(volume_id=volume)


def mount(released):
    capability = released.message("VolumeCapability")()
    capability.mount.fs_type = "ext4"
    capability.access_mode.mode = 1
    return capability


async def failure(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")
