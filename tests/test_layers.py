"""Imports go one way, as the list of layers below says: from right to left, and among siblings too."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unperturbed"
GROUND = (
    *("errors", "catalogue", "checks", "reading", "imports", "types", "findings"),
    *("processor", "runs", "storage", "hub", "trackers", "engines"),
)
LAYERS = (
    *GROUND,
    *("noise", "losses", "statistics", "networks", "threat", "architectures", "weights", "data"),
    *("maximise", "curvature", "methods", "attacks", "suites", "anatomy", "specs", "reports"),
    *("evaluation", "training", "adapters", "examinations", "sweeps", "studies", "results", "cli"),
)
ASIDE = ("architectures", "weights", "data", "reports")
"""They know nothing of threats and of what stands on them."""
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """Return the file or folder of the package that a dotted name lies in; "" for the package itself."""
    return (module.split(".") + [""])[1]


def imported_rooms(source: str, package: str) -> set[str]:
    """Return the rooms that a file imports, wherever in the file: inside functions and for type checking alike."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            modules |= {base} if base != "unperturbed" else {f"{base}.{alias.name}" for alias in node.names}
    return {room(module) for module in modules if module.split(".")[0] == "unperturbed"}


def allowed(importer: str, imported: str) -> bool:
    if importer in ASIDE and imported not in ASIDE:
        return LAYERS.index(imported) < LAYERS.index("threat")
    return LAYERS.index(imported) <= LAYERS.index(importer)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    importer = parts[1] if parts[1] != "__init__" else "cli"
    if importer == "__main__":
        importer = "cli"
    assert importer in LAYERS, f"{importer} has no place in the order of layers"
    for imported in imported_rooms(path.read_text(), ".".join(parts[:-1])):
        assert imported in LAYERS, f"{path} imports unperturbed.{imported}, which has no place in the order"
        assert allowed(importer, imported), f"{path} imports {imported}, but {importer} lies below it"


def test_the_check_sees_every_form_of_import() -> None:
    source = """
import unperturbed.cli.main
from unperturbed import threat
from ..data import sources
def late():
    from unperturbed.training.loop import train
if TYPE_CHECKING:
    from unperturbed.architectures.mlp import MLP
"""
    assert imported_rooms(source, "unperturbed.losses") == {"cli", "threat", "training", "architectures", "data"}


def test_the_order_is_enforced_in_both_directions() -> None:
    assert allowed("threat", "noise") and not allowed("noise", "threat")
    assert allowed("methods", "maximise") and not allowed("maximise", "methods")
    assert not allowed("losses", "networks") and allowed("networks", "noise")
    assert not allowed("reports", "threat") and not allowed("data", "threat") and not allowed("maximise", "suites")
    assert allowed("training", "data") and allowed("cli", "architectures") and allowed("data", "errors")
