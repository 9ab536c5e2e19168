"""Builds the images of the Containerfile without a container engine.

The file itself is read and its instructions are carried out: FROM copies a root file system, RUN
runs in it by chroot with namespaces of its own. The base image is made with mmdebstrap, with what
Debian's "slim" images leave out left out too. What an engine adds (layers, metadata, a registry) is
not made; what is in the images is.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
SLIM = """\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""
"""What the slim images tell dpkg (debuerreotype, .slimify-excludes)."""
_MOUNTED = """
mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/run" && mount --rbind /dev "$0/dev" &&
mount --bind /etc/resolv.conf "$0/etc/resolv.conf" &&
mkdir "$0/run/certificates" && mount --bind /etc/ssl/certs "$0/run/certificates" &&
exec chroot "$0" /bin/sh -ec "$1"
"""


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system, and what its metadata would say."""

    root: Path
    user: str
    entrypoint: Sequence[str]
    labels: Mapping[str, str]
    environment: Mapping[str, str]

    def run(self, *words: str, read_only: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the image as its user, on a root that cannot be written."""
        user = self.user.partition(":")[0]
        as_user = f"setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs"
        protect = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" &&' if read_only else ""
        script = f'{protect} mount -t proc proc "$0/proc" && exec chroot "$0" {as_user} "$@"'
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, str(self.root), *words],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def size(self) -> int:
        """Bytes on disk, uncompressed."""
        done = subprocess.run(
            ["du", "-sx", "-B1", str(self.root)], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[0])


def parse(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first FROM, and the stages. Raises ValueError."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for word, rest in instructions(text):
        if word == "FROM":
            match = re.fullmatch(r"(\S+) AS ([a-z]+)", rest)
            if match is None:
                raise ValueError(f"FROM {rest}: expected FROM base AS name")
            stages.append(Stage(match[2], match[1]))
        elif not stages and word == "ARG":
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif stages and word in {"ARG", "COPY", "ENTRYPOINT", "ENV", "LABEL", "RUN", "USER"}:
            stages[-1].instructions.append((word, rest))
        else:
            raise ValueError(f"unknown instruction {word}")
    return arguments, stages


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction and the rest of its line; continued lines are one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def debian(folder: Path) -> Path:
    """The base: a minimal Debian, made once."""
    root = folder / SUITE
    if not (root / "ready").exists():
        shutil.rmtree(root, ignore_errors=True)
        # mmdebstrap makes the root's folder, but none above it, as in a fresh clone.
        folder.mkdir(parents=True, exist_ok=True)
        _call("mmdebstrap", "--mode=root", "--variant=minbase", SUITE, str(root), MIRROR)
        _slim(root)
    return root


def _slim(root: Path) -> None:
    """Leave out what the slim images leave out, now and when more is installed."""
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
    for left_out in ("info", "lintian", "locale", "man"):
        shutil.rmtree(root / "usr/share" / left_out, ignore_errors=True)
    for file in (root / "usr/share/doc").glob("*/*"):
        if file.name != "copyright":
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)
    for cache in [
        *root.glob("var/cache/apt/archives/*.deb"),
        *root.glob("var/lib/apt/lists/*_*"),
    ]:
        cache.unlink()
    (root / "ready").touch()


def copy(source: Path, root: Path) -> None:
    """A root file system, or what was begun of it, made anew from another."""
    shutil.rmtree(root, ignore_errors=True)
    _call("cp", "-a", "--reflink=auto", str(source), str(root))
    (root / "ready").unlink(missing_ok=True)


class Builder:
    """Carries a Containerfile out, from a source folder into a build folder."""

    def __init__(self, source: Path, folder: Path, *, built: bool = False) -> None:
        self._source = source
        self._folder = folder
        self._built = built
        self._images: dict[str, Image] = {}

    def build(self, text: str) -> dict[str, Image]:
        """The images of all stages, by name; ``built``: as they were left by an earlier run."""
        arguments, stages = parse(text)
        for stage in stages:
            self._images[stage.name] = self._build(stage, arguments)
        return self._images

    def _build(self, stage: Stage, arguments: Mapping[str, str]) -> Image:
        root = self._folder / stage.name
        base = self._base(stage, arguments)
        if not self._built:
            copy(base.root if base else debian(self._folder), root)
        known = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        environment = dict(base.environment) if base else known
        labels = dict(base.labels) if base else {}
        user = base.user if base else "0:0"
        entrypoint: Sequence[str] = base.entrypoint if base else ()
        values: dict[str, str] = {}
        made = {"COPY", "RUN"} if self._built else set()
        for word, rest in stage.instructions:
            match "" if word in made else word:
                case "ARG":
                    name, _, default = rest.partition("=")
                    values[name] = default
                case "ENV":
                    environment.update(_pairs(rest, values))
                case "LABEL":
                    labels.update(_pairs(rest, values))
                case "USER":
                    user = rest
                case "ENTRYPOINT":
                    entrypoint = json.loads(rest)
                case "COPY":
                    self._copy(root, rest)
                case "RUN":
                    run(root, rest, {**environment, **values})
        return Image(root, user, entrypoint, labels, environment)

    def _base(self, stage: Stage, arguments: Mapping[str, str]) -> Image | None:
        base = self._images.get(stage.base)
        if base is None and stage.base.removeprefix("${").removesuffix("}") not in arguments:
            raise ValueError(f"FROM {stage.base}: neither a stage nor an argument")
        return base

    def _copy(self, root: Path, rest: str) -> None:
        *options, source, target = shlex.split(rest)
        origin = self._source
        for option in options:
            origin = self._images[option.removeprefix("--from=")].root
        there = root / target.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("__pycache__")
        here = origin / source.lstrip("/")
        if here.is_dir():
            shutil.copytree(
                here, there, symlinks=True, dirs_exist_ok=True, ignore=None if options else ignore
            )
        else:
            shutil.copy2(here, there)


def _pairs(rest: str, values: Mapping[str, str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in shlex.split(rest))
    return {
        name: re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], value)
        for name, _, value in pairs
    }


def run(root: Path, command: str, environment: Mapping[str, str]) -> None:
    """Run a line in the root file system, as root, with network and nothing of this machine."""
    there = root / "etc/resolv.conf"
    there.touch()
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", _MOUNTED, str(root), command],
        env={
            **environment,
            "DEBIAN_FRONTEND": "noninteractive",
            # Whom this machine trusts; a builder behind a proxy has to say so as well.
            **{
                name: "/run/certificates/ca-certificates.crt"
                for name in ("PIP_CERT", "SSL_CERT_FILE")
                if name in os.environ
            },
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1800,
    )
    if done.returncode != 0:
        raise RuntimeError(f"RUN {command}\n{done.stdout[-4000:]}")


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
