-- Who pays whom: any account the last one, which is locked second: as late as can be.
\set source random(1, :accounts - 1)
\set destination :accounts
\set first :source
\set second :destination
