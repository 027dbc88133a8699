"""The documentation site: `make docs` builds it into `site/`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import site_notebooks  # noqa: E402
import site_pages  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import unperturbed  # noqa: E402

project = "unperturbed"
version = release = unperturbed.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"unperturbed {version}"
html_show_sphinx = False
html_show_copyright = False
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
default_role = "code"  # docstrings write `x` for code
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["myst.header"]  # pages of the repository may start at a second-level heading


def setup(app: Sphinx) -> None:
    """Add the pages made from the code, the links of the repository, and the notebooks."""
    app.connect("builder-inited", lambda app: site_pages.write(Path(app.srcdir) / "generated"))
    app.connect("source-read", site_pages.links_within_the_site)
    app.connect("autodoc-process-docstring", site_pages.plain_docstring)
    app.connect("build-finished", site_notebooks.write)
