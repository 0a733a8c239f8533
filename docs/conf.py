"""The documentation, built by `make docs` into docs/_build/html."""

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("_extensions")))

import rayprob

project = "rayprob"
author = "the rayprob developers"
copyright = "the rayprob developers, Apache-2.0"
release = rayprob.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "command_reference",
    "spec_reference",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# autodoc rewrites the annotations of pydantic's BaseModel, after which no model can be built: so all are built before.
for module in pkgutil.walk_packages(rayprob.__path__, "rayprob."):
    if not module.name.endswith("__main__"):
        import_module(module.name)

html_theme = "furo"
html_title = "rayprob"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
suppress_warnings = ["myst.header"]
