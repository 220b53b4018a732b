"""``unoic doctor``."""

from unoic_cli.cli.common import check_format, note, show
from unoic_cli.cli.program import QuietOptions, command
from unoic_cli.commands.doctor import DoctorOptions

HELP = """Versions, optional extras that are complete, threads and what bounds them, the processor and what kernels use
of it, whether they can be compiled, the folder that keeps them, what it holds, and how fast scores are counted.

Example: unoic doctor

Example: unoic doctor --warm
"""


@command(DoctorOptions, help=HELP, after=(QuietOptions,))
def doctor(format: str | None, warm: bool, quiet: bool) -> None:
    """Look, and show what was found."""
    from unoic_cli.api import doctor as api
    from unoic_cli.report.doctor import render_doctor

    check_format(format)
    show(api.doctor(warm=warm, tell=None if quiet else note), format, render_doctor)
