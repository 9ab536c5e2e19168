"""``rds-csi doctor``: whether a node, or an RDS, is as the driver needs it, and what to do if not.

* ``node/``: ``checks`` of a node; ``prerequisites``, ``host_nqn``, ``driver_socket``,
  ``time_sync``: what they look at
* ``rds/``: ``checks`` of an RDS; ``login``: from its address to a session with it
* ``rds/scratch``: volumes of the doctor's own on an RDS, made and removed again
* ``rds/unknowns``: what nobody has measured of RouterOS; ``measures`` and ``host_view``: how it is
* ``rds/initiator``: an NVMe/TCP host in user space
* ``reach``: whether an address answers
* ``check``: what came of a check; ``show`` and ``report``: how that is shown
"""
