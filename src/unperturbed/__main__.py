"""`python -m unperturbed`."""

from unperturbed.cli.main import program

if __name__ == "__main__":
    raise SystemExit(program())
