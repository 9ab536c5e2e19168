"""What every test needs."""

import asyncio


def pytest_configure() -> None:
    """Tell asyncio that there is no event loop.

    pytest-asyncio asks for the current one before its first test. On Python 3.11 asyncio answers
    by making one, unless told before, and nobody closes it.
    """
    asyncio.set_event_loop(None)
