"""``python -m rds_csi.lab COMMAND...``: run a command in the lab."""

import sys
from pathlib import Path

import click

from rds_csi.lab import Lab, LabFailed, LabUnavailable
from rds_csi.lab.kernels import SUITES

EXIT_UNAVAILABLE = 75
"""What the exit status is where this machine cannot run the lab (``EX_TEMPFAIL``)."""


def _variables(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """The variables by their names."""
    if wrong := [entry for entry in given if "=" not in entry]:
        raise click.BadParameter(f"{wrong[0]!r} is not like NAME=VALUE")
    return dict(entry.split("=", maxsplit=1) for entry in given)


def _kernel(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    """A name that is known, or a path."""
    if given and given not in SUITES and "/" not in given:
        raise click.BadParameter(f"{given!r} is none of {', '.join(SUITES)} and no path")
    return given


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--shared", type=click.Path(path_type=Path), default=Path("build/lab"))
@click.option(
    "--timeout", type=click.FloatRange(1, 86400), default=1800.0, help="Seconds for all of it."
)
@click.option("--memory", default="2G")
@click.option(
    "--env", "environment", multiple=True, callback=_variables, help="NAME=VALUE, in the guest."
)
@click.option(
    "--kernel",
    callback=_kernel,
    envvar="RDS_CSI_LAB_KERNEL",
    show_envvar=True,
    help=f"Debian's kernel to boot ({', '.join(SUITES)}), or the path of an image, "
    "vmlinuz-VERSION with its modules in /lib/modules.",
)
@click.option("--prepare", is_flag=True, help="Only install what the host lacks.")
@click.argument("command", nargs=-1)
def main(
    *,
    shared: Path,
    timeout: float,
    memory: str,
    environment: dict[str, str],
    kernel: str | None,
    prepare: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in the lab's virtual machine; SHARED is writable there."""
    lab = Lab(memory=memory, kernel=kernel)
    try:
        if prepare or not command:
            lab.prepare()
            return
        status = lab.run(command, shared=shared, timeout=timeout, environment=environment)
    except LabUnavailable as error:
        click.echo(f"the lab cannot run here: {error}", err=True)
        sys.exit(EXIT_UNAVAILABLE)
    except (LabFailed, OSError) as error:
        click.echo(f"the lab failed: {error}", err=True)
        sys.exit(1)
    sys.exit(status)


if __name__ == "__main__":
    main()
