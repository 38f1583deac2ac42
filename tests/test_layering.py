"""The design's layers, held by reading the imports of every file.

A file imports from its own layer or a lower one. Each rule is first proven on a small
bad tree, then applied to the repository.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "ecogen_jax"
CONFIGS = (
    "config",
    "config_federated",
    "config_hops",
    "config_presets",
    "config_rules",
    "config_scope",
)
LAYERS = {
    **dict.fromkeys(("types", "keys", "distributed", "mesh", "packing"), 0),
    **dict.fromkeys(CONFIGS, 0),
    **dict.fromkeys(("nets", "losses", "metrics", "data", "energy"), 1),
    **dict.fromkeys(("relay", "serve"), 2),
    **dict.fromkeys(("run", "report"), 3),
    "": 3,  # the package's own __init__, which offers the public names
}
CONFIG = (
    "ml_collections",
    *(f"{PACKAGE}.{name}" for name in CONFIGS),
)
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")
OUTSIDE = ("benchmarks", "configs", "papers_repro", "scripts", "tests")
VAGUE_NAMES = {"utils", "util", "helpers", "common", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_within(module, *packages):
    return any(module == p or module.startswith(f"{p}.") for p in packages)


def imported(nodes, package):
    """Yields every module, or module and name, that import statements name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            parts = [*(above if node.level else []), *([node.module or ""])]
            base = ".".join(part for part in parts if part)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def used(tree, package):
    """All imports of a file, and dotted uses such as `flax.nnx.Module`."""
    yield from imported(ast.walk(tree), package)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def layer(module):
    return LAYERS.get(module.removeprefix(PACKAGE).strip(".").partition(".")[0])


def import_faults(path, root):
    """Says what one package file imports against the rules."""
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    own = layer(module)
    if own is None:
        yield f"{module} is in no layer of LAYERS"
        return
    names = set(used(ast.parse(path.read_text()), package))

    def uses(*modules):
        return any(is_within(name, *modules) for name in names)

    for name in sorted(n for n in names if is_within(n, PACKAGE)):
        target = layer(name)
        if target is None or target > own:
            yield f"{module} imports {name} of a higher layer"
    if uses("flax.nnx") and not is_within(module, f"{PACKAGE}.nets"):
        yield f"{module} uses flax.nnx outside nets/"
    if uses("orbax") and module != f"{PACKAGE}.run.checkpoint":
        yield f"{module} uses orbax outside run/checkpoint.py"
    if own <= 2 and uses(*CONFIG) and not is_within(module, *CONFIG):
        yield f"{module} reads the config below run/build.py"


def loaded_at_import(module, root, seen):
    """Yields the modules that importing one package module loads, with their path."""
    path = root / pathlib.Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if module in seen or not file.is_file():
        return
    seen.add(module)
    package = module if path.is_dir() else module.rpartition(".")[0]
    for name in imported(ast.parse(file.read_text()).body, package):
        yield name
        if is_within(name, PACKAGE):
            parts = name.split(".")
            for size in range(1, len(parts) + 1):
                yield from loaded_at_import(".".join(parts[:size]), root, seen)


def report_faults(root):
    """Says which file of report/ would load jax, itself or through another file."""
    for path in sorted((root / PACKAGE / "report").glob("**/*.py")):
        module = module_name(path, root)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = set(imported(ast.walk(ast.parse(path.read_text())), package))
        for size in range(1, len(module.split(".")) + 1):
            above = ".".join(module.split(".")[:size])
            names.update(loaded_at_import(above, root, set()))
        for name in sorted(n for n in names if is_within(n, *JAX)):
            yield f"{module} loads {name}; report/ never imports jax"


def size_faults(path):
    """Says whether a file or function is too long, or a file's name too vague."""
    text = path.read_text()
    num_lines = len(text.splitlines())
    if path.stem in VAGUE_NAMES:
        yield f"{path.name} says nothing of what the file holds"
    if num_lines > MAX_FILE_LINES:
        yield f"{path.name} has {num_lines} lines, more than {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield (
                    f"{path.name}: {node.name} has {length} lines, "
                    f"more than {MAX_FUNCTION_LINES}"
                )


def faults(root):
    package = sorted((root / PACKAGE).glob("**/*.py"))
    outside = [path for name in OUTSIDE for path in (root / name).glob("**/*.py")]
    found = [fault for path in package for fault in import_faults(path, root)]
    found += report_faults(root)
    found += [fault for path in package + outside for fault in size_faults(path)]
    return found


def test_the_repository_keeps_the_rules():
    assert faults(ROOT) == []


LONG_FUNCTION = "def long():\n" + "    pass\n" * MAX_FUNCTION_LINES
BAD_FILES = [
    ("losses.py", "from ecogen_jax.relay import message", "higher layer"),
    ("losses.py", "from .relay import message", "higher layer"),
    ("nets/cnn.py", "from ..run.loop import run", "higher layer"),
    ("relay/hop.py", "def f():\n    import ecogen_jax.run.loop", "higher layer"),
    ("mesh.py", "import ecogen_jax", "higher layer"),
    ("other.py", "", "in no layer"),
    ("relay/hop.py", "from flax import nnx", "nnx outside nets/"),
    ("relay/hop.py", "import flax\nx = flax.nnx.Module", "nnx outside nets/"),
    ("relay/hop.py", "from flax.nnx import Module", "nnx outside nets/"),
    ("nets/cnn.py", "from flax import nnx", None),
    ("run/loop.py", "import orbax.checkpoint as ocp", "orbax outside"),
    ("run/loop.py", "from orbax.checkpoint import v1", "orbax outside"),
    ("run/checkpoint.py", "import orbax.checkpoint as ocp", None),
    ("report/html.py", "import jax.numpy as jnp", "never imports jax"),
    ("report/html.py", "def f():\n    import jax", "never imports jax"),
    ("report/html.py", "from ecogen_jax.run import loop", "loads jax"),
    ("report/html.py", "from ecogen_jax import config", None),
    ("relay/hop.py", "from ecogen_jax.config import default", "reads the config"),
    ("relay/hop.py", "from ml_collections import ConfigDict", "reads the config"),
    ("run/build.py", "from ecogen_jax.config import default", None),
    ("relay/utils.py", "", "says nothing"),
    ("relay/hop.py", "x = 1\n" * (MAX_FILE_LINES + 1), "401 lines"),
    ("relay/hop.py", LONG_FUNCTION, "long has 61 lines"),
    ("../papers_repro/rows.py", LONG_FUNCTION, "long has 61 lines"),
    ("../tests/helpers.py", "", "says nothing"),
]


@pytest.mark.parametrize(("name", "text", "expected"), BAD_FILES)
def test_each_rule_fires_on_a_bad_file_and_only_there(tmp_path, name, text, expected):
    good = {
        "__init__.py": "def load_run():\n    from ecogen_jax.run import loop",
        "config.py": "import ml_collections",
        "run/__init__.py": "",
        "run/loop.py": "import jax",
    }
    for path, body in {**good, name: text}.items():
        file = tmp_path / PACKAGE / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    found = faults(tmp_path)
    assert bool(found) == (expected is not None)
    assert all(expected in fault for fault in found)
