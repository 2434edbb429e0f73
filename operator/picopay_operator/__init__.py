"""The PicoPay operator: turns a `PicoPayEngine` into pods, secrets, migrations and what is around them."""
