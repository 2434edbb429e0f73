"""What runs beside requests: sealing, auditing, keeping partitions.

Any number of workers may run on one database; what must happen once is guarded by advisory locks,
with a primary key as the net. Nothing here decides about money.
"""
