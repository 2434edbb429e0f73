"""The PicoPay operator: turns a `PicoPayEngine` into running pods, secrets, migrations and what is around them."""
