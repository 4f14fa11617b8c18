"""Who may import whom, read from the sources, and what importing the losses costs."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from symtable import symtable

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"visxp_jax", "data_prep", "configs", "experiments", "tests"}
EVERY_SOURCE = sorted(
    path.relative_to(ROOT)
    for package in OURS
    for path in (ROOT / package).rglob("*.py")
)
SOURCES = [p for p in EVERY_SOURCE if p.parts[0] not in ("experiments", "tests")]
PURE = {"visxp_jax.losses", "visxp_jax.geometry"}
# TensorFlow at the top of a module: that module cannot be imported without it.
TENSORFLOW_READERS = {Path("visxp_jax/data/tfrecord.py")}


def imports(tree: ast.AST) -> set[str]:
    """Absolute names of all modules that the nodes below `tree` import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names.add(node.module or "")
    return names


def top_level_imports(tree: ast.Module) -> set[str]:
    """What merely importing the module imports: not what its functions do."""
    lazy = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    names, todo = set(), [node for node in tree.body if not isinstance(node, lazy)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= imports(node)
        todo += [n for n in ast.iter_child_nodes(node) if not isinstance(n, lazy)]
    return names


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def package(path: Path) -> str:
    """`visxp_jax.losses` for visxp_jax/losses/sinkhorn.py."""
    return ".".join(path.parts[:-1])


def within(name: str, packages: set[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


@cache
def names_in(module: str) -> set[str]:
    """What can be imported from a module of ours."""
    path = ROOT.joinpath(*module.split("."))
    inside = {found.stem for found in path.glob("*")}
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not source.exists():
        return inside
    table = symtable(source.read_text(encoding="utf-8"), str(source), "exec")
    names = {x.get_name() for x in table.get_symbols() if x.is_local()}
    return inside | names


# Linters do not follow the imports of experiments and tests.
@pytest.mark.parametrize("path", EVERY_SOURCE, ids=str)
def test_what_is_imported_from_ours_is_there(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and within(node.module or "", OURS):
            wanted = {alias.name for alias in node.names}
            assert not wanted - names_in(node.module), f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nobody_imports_experiments_or_tests(path):
    found = imports(parsed(path))
    assert not {n for n in found if within(n, {"experiments", "tests"})}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if within(package(p), PURE)], ids=str
)
def test_losses_import_only_jax_numpy_and_each_other(path):
    allowed = PURE | {"jax", "numpy", *sys.stdlib_module_names}
    assert not {n for n in imports(parsed(path)) if not within(n, allowed)}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_tensorflow_only_in_data_and_never_at_import(path):
    tree = parsed(path)
    if not within(package(path), {"visxp_jax.data", "data_prep"}):
        assert not {n for n in imports(tree) if within(n, {"tensorflow"})}
    if path not in TENSORFLOW_READERS:
        assert not {n for n in top_level_imports(tree) if within(n, {"tensorflow"})}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_modules_that_need_tensorflow_are_imported_late(path):
    needs = {".".join(p.with_suffix("").parts) for p in TENSORFLOW_READERS}
    # clu's writers import TensorFlow themselves.
    needs |= {"clu", "clu.metric_writers", "clu.periodic_actions"}
    assert not needs & top_level_imports(parsed(path))


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parts[0] == "configs"], ids=str
)
def test_configs_import_only_the_config_package(path):
    allowed = {"visxp_jax.config", "ml_collections", "configs"}
    allowed |= set(sys.stdlib_module_names)
    assert not {n for n in imports(parsed(path)) if not within(n, allowed)}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nobody_makes_a_mesh_but_sharding(path):
    # Its default axes are Explicit, under which gathers and rolls are errors.
    if path == Path("visxp_jax/sharding.py"):
        return
    forbidden = {"jax.make_mesh", "jax.sharding.Mesh", "Mesh"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in forbidden, f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "jax":
            assert "make_mesh" not in {alias.name for alias in node.names}


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter that sees the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_losses_load_jax_and_nothing_else():
    loaded = run_python(
        "import sys\n"
        "import jax, jax.numpy\n"
        "before = set(sys.modules)\n"
        "from visxp_jax.losses import avc_bce, equipartition\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    ).split()
    others = set(loaded) - sys.stdlib_module_names
    assert others <= {"visxp_jax", "jax", "jaxlib"}, others


def test_losses_import_costs_little_beyond_jax():
    code = (
        "import time\n"
        "import jax\n"
        "start = time.perf_counter()\n"
        "from visxp_jax.losses import avc_bce, equipartition\n"
        "print(time.perf_counter() - start)"
    )
    assert min(float(run_python(code)) for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    "module", ["visxp_jax", "visxp_jax.extract", "visxp_jax.data.array_record"]
)
def test_module_loads_no_tensorflow(module):
    code = f"import {module}, sys\nprint('tensorflow' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_top_level_imports_tells_late_from_early():
    tree = ast.parse(
        "import a\nif True:\n    from b.c import d\n"
        "class K:\n    import e\n    def f(self):\n        import late\n"
    )
    assert top_level_imports(tree) == {"a", "b.c", "e"}
    assert imports(tree) == {"a", "b.c", "e", "late"}
