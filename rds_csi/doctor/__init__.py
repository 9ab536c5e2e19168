"""``rds-csi doctor``: whether a node, or an RDS, is as the driver needs it, and what to do if not.

* :mod:`.command`: look, show, and say by the exit status
* :mod:`.node`: the checks of a node
* :mod:`.rds`: the checks of an RDS, and what nobody has measured of RouterOS yet
* :mod:`.reach`: whether an address answers
* :mod:`.check`: what came of a check; :mod:`.show` and :mod:`.report`: how that is shown
"""
