"""Sphinx configuration. Formulas become MathML, so that a page asks nothing of the network."""

import os
import re
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml

HERE = Path(__file__).parent

project = "maxaffine"
author = "the maxaffine developers"
copyright = f"2026, {author}"
version = release = installed_version("maxaffine")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "experiments/*.md", "gallery/*.ipynb", "gallery/*.py", "gallery/*.json"]
html_theme = "furo"
html_title = f"maxaffine {version}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_copy_source = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True

# Examples that need data are shown as code where there is none.
NEED_DATA = [path.stem for path in HERE.parent.glob("examples/plot_*.py") if "MAXAFFINE_ASSETS" in path.read_text()]
EXECUTED = rf"/(?!({'|'.join(NEED_DATA)})\.py)plot_"

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "ignore_pattern": r"^(?!plot_)",
    "filename_pattern": "/plot_" if "MAXAFFINE_ASSETS" in os.environ else EXECUTED,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "capture_repr": (),
    "show_memory": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
}
warnings.filterwarnings("ignore", message=".*non-interactive.*cannot be shown.*")


def visit_math(writer, node):
    """Write a formula as MathML, with docutils' own converter."""
    block = isinstance(node, nodes.math_block)
    mathml = latex2mathml.tex2mathml(node.astext(), as_block=block)
    writer.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def docstring_to_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text: `name` is code, * | _ are mathematics, what is indented is a formula."""
    if what == "property":  # or napoleon takes what stands before the first colon for a type
        lines[0] = lines[0].replace(": ", " \N{EN DASH} ", 1)
    text = "\n".join(lines)
    parts = re.split(
        r"((?:^ *>>> .*\n(?: *\S.*\n)*)|(?:^    \S.*\n(?:(?: {4,}.*)?\n)*))", text + "\n", flags=re.MULTILINE
    )
    found = []
    for part in parts:
        before = found[-1].rstrip() if found else ""
        if ">>>" in part:
            found.append("\n" + part)
        elif part.startswith("    ") and not before.endswith(":"):
            found.append("\n::\n\n" + part + "\n")
        else:
            found.append(
                re.sub(r"(?<!`)`([^`]+)`(?!`)|([*|_])", lambda m: f"``{m[1]}``" if m[1] else "\\" + m[2], part)
            )
    lines[:] = "".join(found).splitlines()


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("autodoc-process-docstring", docstring_to_rst, priority=400)  # before napoleon's, which is at 500
