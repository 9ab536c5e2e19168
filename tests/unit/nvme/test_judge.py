"""What the reaper decides of one subsystem, whatever is known of it."""

from dataclasses import replace

import pytest

from rds_csi.nvme.reaper import Facts, Verdict, judge
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN
from tests.unit.nvme.kernel import A

USELESS = Facts(
    nqn=A,
    our_name=True,
    hosts=frozenset({HOST_NQN}),
    states=("live",),
    namespaces=0,
    mounted=False,
    held=False,
    recorded=False,
    locked=False,
    sightings=2,
    idle=300.0,
)
IDLE = replace(USELESS, namespaces=1)


def decide(facts: Facts, *, starting: bool = False) -> Verdict:
    return judge(facts, host=HOST_NQN, grace=300.0, starting=starting)


@pytest.mark.parametrize("facts", [USELESS, IDLE], ids=["no device", "idle device"])
def test_judge_useless_twice_and_long_enough(facts: Facts) -> None:
    verdict = decide(facts)
    assert verdict.disconnect
    assert "for 300 s" in verdict.reason


@pytest.mark.requirement("PIT-03")
@pytest.mark.parametrize("starting", [False, True])
@pytest.mark.parametrize("facts", [USELESS, IDLE], ids=["no device", "idle device"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"our_name": False}, "not the name of a volume"),
        ({"hosts": frozenset({OTHER_NQN})}, "another host identity"),
        ({"hosts": frozenset({OTHER_NQN, HOST_NQN})}, "another host identity"),
        ({"hosts": frozenset({""})}, "another host identity"),
        ({"mounted": True}, "mounted"),
        ({"held": True}, "held"),
        ({"locked": True}, "operation"),
        ({"recorded": True}, "recorded"),
        ({"states": ("connecting",)}, "the kernel is at it: connecting"),
        ({"states": ("connecting", "live")}, "the kernel is at it: connecting, live"),
        ({"states": ("resetting",)}, "the kernel is at it"),
        ({"states": ("deleting",)}, "the kernel is at it"),
        ({"states": ()}, "the kernel is at it"),
    ],
)
def test_judge_one_thing_that_speaks_for_it_is_enough(
    facts: Facts, change: dict[str, object], reason: str, starting: bool
) -> None:
    verdict = decide(replace(facts, **change), starting=starting)  # type: ignore[arg-type]
    assert not verdict.disconnect
    assert reason in verdict.reason


def test_judge_one_path_of_several_that_is_down_hides_no_use() -> None:
    one_down = {"states": ("connecting", "live"), "joined": True}
    assert decide(replace(IDLE, **one_down)).disconnect  # type: ignore[arg-type]
    for change in (
        {"joined": False},
        {"namespaces": 0},
        {"states": ("connecting",)},
        {"states": ("connecting", "deleting", "live")},
    ):
        verdict = decide(replace(IDLE, **{**one_down, **change}))  # type: ignore[arg-type]
        assert "the kernel is at it" in verdict.reason
    at_start = decide(replace(IDLE, **one_down), starting=True)  # type: ignore[arg-type]
    assert not at_start.disconnect


@pytest.mark.parametrize("change", [{"sightings": 1}, {"idle": 299.0}])
def test_judge_waits(change: dict[str, float]) -> None:
    verdict = decide(replace(USELESS, **change))  # type: ignore[arg-type]
    assert not verdict.disconnect
    assert "waiting" in verdict.reason


def test_judge_at_the_start() -> None:
    seen_now = {"sightings": 1, "idle": 0.0}
    assert decide(replace(USELESS, **seen_now), starting=True).disconnect  # type: ignore[arg-type]
    kept = decide(IDLE, starting=True)
    assert not kept.disconnect
    assert "left alone" in kept.reason
