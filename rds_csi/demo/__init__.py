"""``rds-csi demo``: the driver's main job, shown for real in under a minute."""
