-- The arithmetic of history.py for millions of rows. Placeholders in braces are filled in by fill.py.
CREATE SCHEMA fill;
CREATE TABLE fill.account AS
SELECT n::bigint - 1 AS number, id FROM unnest($1::uuid[]) WITH ORDINALITY AS a(id, n);
ANALYZE fill.account;

-- The milliseconds of a commit since 1970.
CREATE FUNCTION fill.ms(p_commit bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ({began_us} + p_commit * {step_us}) / 1000;

CREATE FUNCTION fill.moment(p_ms bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN timestamptz '1970-01-01 00:00:00+00' + p_ms * interval '1 millisecond';

-- The id of a payment: a UUIDv7 that rises within its commit.
CREATE FUNCTION fill.id(p_payment bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(
    int8send((fill.ms(p_payment / {commit_rows}) << 16) | x'7000'::bigint | (p_payment % {commit_rows}))
    || int8send((hashint8extended(p_payment, 0) & x'0fffffffffffffff'::bigint) | x'8000000000000000'::bigint),
    'hex')::uuid;

CREATE FUNCTION fill.turn(p_payment bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_payment / {accounts};

CREATE FUNCTION fill.place(p_payment bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN p_payment % {accounts};

CREATE FUNCTION fill.shift(p_payment bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + fill.turn(p_payment) * {multiplier} % ({accounts} - 1);

CREATE FUNCTION fill.payer(p_payment bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (fill.place(p_payment) + fill.turn(p_payment)) * {multiplier} % {accounts};

CREATE FUNCTION fill.payee(p_payment bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (fill.place(p_payment) + fill.shift(p_payment) + fill.turn(p_payment)) * {multiplier} % {accounts};

CREATE FUNCTION fill.amount(p_payment bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 100 + fill.turn(p_payment) % 900;

CREATE FUNCTION fill.key(p_payment bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '{run}-' || lpad(p_payment::text, 9, '0');
