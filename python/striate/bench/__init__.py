"""The command line: measurements that verify before they time, and answers about this machine.

``striate bench`` (or ``python -m striate.bench bench``) measures, ``striate roofline`` shows what the machine could
do, ``striate info`` and ``striate explain`` say what would run and why.
"""
