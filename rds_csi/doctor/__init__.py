"""``rds-csi doctor``: whether a node, or an RDS, is as the driver needs it, and what to do if not.

node.py       the checks of a node; host.py, identity.py, clock.py what they look at
rds.py        the checks of an RDS, over the driver's own SSH session
reach.py      whether an address answers
scratch.py    volumes of the doctor's own on an RDS, made and removed again
unknowns.py   what nobody has measured of RouterOS, and what this RDS says to it
check.py      one check's result; show.py, report.py how results are shown
"""
