"""Every SQL statement of PicoPay and the schema it runs on.

Called by `engine` and `worker`; knows nothing of HTTP and decides nothing that `decide.sql` or
`engine/ledger.py` decide. Each module holds the statements of one subject, in sight.
"""
