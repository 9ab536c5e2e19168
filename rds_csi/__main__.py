"""``python -m rds_csi`` is ``rds-csi``."""

from rds_csi.cli.main import main

main()
