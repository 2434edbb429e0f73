-- Who pays whom: any account any other. :accounts is given on the command line. Of the two accounts the
-- smaller number is locked first, so that no two transactions wait for each other.
\set source random(1, :accounts)
\set destination 1 + (:source - 1 + random(1, :accounts - 1)) % :accounts
\set first least(:source, :destination)
\set second greatest(:source, :destination)
