"""The documentation, built by `make docs` into docs/_build/html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("_extensions")))

from rayprob import __version__

project = "rayprob"
author = "the rayprob developers"
copyright = "the rayprob developers, Apache-2.0"
release = __version__

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
html_theme = "furo"
html_title = "rayprob"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
suppress_warnings = ["myst.header"]
