"""The processes that a process started, and theirs."""

from pathlib import Path


def parents() -> dict[int, int]:
    """The parent of every process there is."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything.
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(path.parent.name)] = int(fields[1])
    return found


def descendants(pid: int) -> set[int]:
    """All processes below this one."""
    found, todo, known = set[int](), [pid], parents()
    while todo:
        above = todo.pop()
        below = {child for child, parent in known.items() if parent == above}
        found |= below
        todo += below
    return found


def command(pid: int) -> str:
    """What a process runs; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
