"""Makes ``rds_csi/csi/generated`` from ``protos/csi/v1/csi.proto``.

``python protos/generate.py`` writes it, ``--out FOLDER`` writes it elsewhere, and ``--check``
writes nothing and exits with 1 if anything in the tree differs from what would be written, or
if the compiled file differs from the released CSI descriptor. Needs the dependency group
``proto``: the text of the output depends on the exact versions of the compiler and of ruff.
"""

import argparse
import difflib
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PROTO = "csi/v1/csi.proto"
GENERATED = ROOT / "rds_csi" / "csi" / "generated"
OPTIONS_FILE = "google/protobuf/descriptor.proto"


def protoc(*arguments: str, cwd: Path) -> None:
    """Run protoc, with the programs of this interpreter's environment on the PATH.

    ``cwd`` is outside the tree: betterproto2 formats with ruff, which would read our settings.
    """
    binaries = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", *arguments]
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"protoc failed:\n{done.stderr}")


def descriptor_set(path: Path) -> None:
    """Compile the file, with everything it imports and all comments, to ``path``."""
    protoc(
        f"-I{PROTOS}", "--include_imports", "--include_source_info", f"-o{path}", PROTO,
        cwd=path.parent,
    )  # fmt: skip


def without_options(source: Path, target: Path) -> None:
    """Copy a descriptor set, leaving out the option extensions and the file they extend.

    betterproto2 drops options anyway, but would write 2,000 lines of Python for the messages
    that describe descriptors, and every start of the driver would import them.
    """
    from google.protobuf import descriptor_pb2  # noqa: PLC0415 - only where protobuf is installed

    found = descriptor_pb2.FileDescriptorSet.FromString(source.read_bytes())
    kept = descriptor_pb2.FileDescriptorSet()
    for file in found.file:
        if file.name == OPTIONS_FILE:
            continue
        if file.name == PROTO:
            file.dependency.remove(OPTIONS_FILE)
            del file.extension[:]
            _clear_options(file)
        kept.file.append(file)
    target.write_bytes(kept.SerializeToString())


def _clear_options(file: Any) -> None:
    messages, enums = list(file.message_type), list(file.enum_type)
    for service in file.service:
        service.ClearField("options")
        for method in service.method:
            method.ClearField("options")
    while messages:
        message = messages.pop()
        messages.extend(message.nested_type)
        enums.extend(message.enum_type)
        if not message.options.map_entry:
            message.ClearField("options")
        for field in message.field:
            field.ClearField("options")
    for enum in enums:
        enum.ClearField("options")
        for value in enum.value:
            value.ClearField("options")


def generate(out: Path) -> None:
    """Write the package to ``out``, which is replaced."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        descriptor_set(work / "all.pb")
        without_options(work / "all.pb", work / "lean.pb")
        (work / "out").mkdir()
        protoc(
            f"--descriptor_set_in={work / 'lean.pb'}",
            f"--python_betterproto2_out={work / 'out'}",
            "--python_betterproto2_opt=server_generation=async",
            "--python_betterproto2_opt=client_generation=async",
            PROTO,
            cwd=work,
        )
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(work / "out", out)


def differences(expected: Path, found: Path) -> list[str]:
    """What differs between two folders, as lines of a diff; none if they are equal."""
    lines: list[str] = []
    names = {
        path.relative_to(root)
        for root in (expected, found)
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in sorted(names):
        left, right = found / name, expected / name
        if left.exists() and right.exists() and filecmp.cmp(left, right, shallow=False):
            continue
        lines.append(f"differs: {name}")
        lines += difflib.unified_diff(
            _lines(left), _lines(right), "in the tree", "generated", lineterm="", n=1
        )
    return lines


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def check() -> int:
    """Print every difference of the package and of the descriptor; 1 if there is any."""
    sys.path.insert(0, str(ROOT))
    from protos.released import compare  # noqa: PLC0415 - the path is known only now

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        generate(work / "generated")
        lines = differences(work / "generated", GENERATED)
        descriptor_set(work / "all.pb")
        lines += compare((work / "all.pb").read_bytes())
    for line in lines:
        print(line)
    print(f"{len(lines)} lines of difference" if lines else "generated code and descriptor agree")
    return 1 if lines else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--out", type=Path, default=GENERATED, help="where to write")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    generate(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
