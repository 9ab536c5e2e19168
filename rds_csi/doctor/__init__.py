"""``rds-csi doctor``: whether a node, or an RDS, is as the driver needs it, and what to do if not.

* ``node``: the checks of a node; ``host``, ``identity``, ``service``, ``clock``: what they look at
* ``rds``: the checks of an RDS; ``login``: from its address to a session with it
* ``reach``: whether an address answers
* ``scratch``: volumes of the doctor's own on an RDS, made and removed again
* ``unknowns``: what nobody has measured of RouterOS; ``measures`` and ``sights``: how it is
* ``initiator``: an NVMe/TCP host in user space
* ``check``: what came of a check; ``show`` and ``report``: how that is shown
"""
