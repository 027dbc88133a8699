"""What checks the annotations of the package under pytest, shapes included: beartype, with an int as a float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
