"""Helpers for asyncio and processes that know nothing of storage."""
