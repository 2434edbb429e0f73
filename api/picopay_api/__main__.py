"""`python -m picopay_api`: the same as the `picopay` command."""

from picopay_api.cli import main

if __name__ == "__main__":
    main()
