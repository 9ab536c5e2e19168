"""The fake API server refuses what the real one refuses, and patches all or nothing."""

import pytest

from tests.unit.fakes.api_server import PatchFailedError, patched

NODE = {"spec": {"taints": [{"key": "a"}, {"key": "b"}]}}


def test_a_patch_is_done_in_order_on_a_copy() -> None:
    patch: list[dict] = [
        {"op": "test", "path": "/spec/taints/1", "value": {"key": "b"}},
        {"op": "remove", "path": "/spec/taints/1"},
        {"op": "remove", "path": "/spec/taints/0"},
    ]
    assert patched(NODE, patch) == {"spec": {"taints": []}}
    assert len(NODE["spec"]["taints"]) == 2


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ({"op": "test", "path": "/spec/taints/1", "value": {"key": "a"}}, "testing value"),
        ({"op": "remove", "path": "/spec/taints/2"}, "does not exist"),
        ({"op": "remove", "path": "/spec/taint"}, "does not exist"),
        ({"op": "remove", "path": "/spec/taints/0/key/x"}, "does not exist"),
        ({"op": "replace", "path": "/spec/taints", "value": []}, "unknown operation"),
    ],
)
def test_what_does_not_apply_is_refused(operation: dict, why: str) -> None:
    with pytest.raises(PatchFailedError, match=why):
        patched(NODE, [operation])
