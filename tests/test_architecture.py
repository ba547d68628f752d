"""The rules of CONTRIBUTING.md, read off the syntax trees."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HARNESS = ROOT / "harness" / "mtpbench"
ANALYSIS = ROOT / "analysis" / "mtpbench_analysis"

PURE = (
    "records/*.py",
    "plan.py",
    "metrics/*.py",
    "measure.py",
    "validity.py",
    "error_rate.py",
    "load/pacer.py",
    "load/refusals.py",
    "load/http1.py",
    "load/stream.py",
    "load/usage.py",
    "workload/content.py",
    "workload/lengths.py",
    "power/log.py",
    "power/nodes.py",
    "power/provisioned.py",
    "store/migration.py",
    "sweep/arm_confounds.py",
    "engines/*.py",
    "simengine/worker_model.py",
    "simengine/engine_steps.py",
    "simengine/virtual.py",
    "slurm/states.py",
    "slurm/listings.py",
    "snapshot/__init__.py",
)

ANALYSIS_EFFECTS = ("importers/", "traces.py", "cli/", "report/__init__.py", "report/page.py")
"""All of analysis is pure but this: what reads sources and stored samples, the commands, what writes the
files of a sweep, and the page, which reads its own parts."""
EFFECTS = {"subprocess", "socket", "aiohttp", "asyncio", "pathlib", "os", "shutil", "urllib", "tempfile"}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def modules(root: Path, pattern: str = "**/*.py") -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(root.glob(pattern)):
        yield str(path.relative_to(root)), tree_of(path)


def imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def named(found: set[str], package: str) -> set[str]:
    return {name for name in found if name == package or name.startswith(f"{package}.")}


def test_records_and_errors_import_nothing_else_of_the_project() -> None:
    chosen = [tree for path, tree in modules(HARNESS) if path.startswith("records/") or path == "errors.py"]
    assert len(chosen) > 2
    for tree in chosen:
        found = named(imports(tree), "mtpbench")
        assert found == named(found, "mtpbench.records")


def test_only_the_command_line_of_the_harness_imports_analysis() -> None:
    offenders = [
        path
        for path, tree in modules(HARNESS)
        if named(imports(tree), "mtpbench_analysis") and not path.startswith(("cli/", "__main__"))
    ]
    assert offenders == []


def test_analysis_imports_only_records_errors_hardware_and_store() -> None:
    allowed = {"mtpbench.records", "mtpbench.errors", "mtpbench.hardware", "mtpbench.store", "mtpbench"}
    offenders = {
        path: found
        for path, tree in modules(ANALYSIS)
        if (
            found := {
                name
                for name in named(imports(tree), "mtpbench")
                if ".".join(name.split(".")[:2]) not in allowed
            }
        )
    }
    assert offenders == {}


@pytest.mark.parametrize("pattern", PURE)
def test_pure_modules_import_nothing_that_has_effects(pattern: str) -> None:
    checked = 0
    for path, tree in modules(HARNESS, pattern):
        touched = {name.split(".")[0] for name in imports(tree)} & EFFECTS
        assert not touched, f"{path} imports {touched}"
        checked += 1
    assert checked


def test_analysis_is_pure_but_where_it_reads_sources_and_writes_what_was_asked_for() -> None:
    for path, tree in modules(ANALYSIS):
        if path.startswith(ANALYSIS_EFFECTS):
            continue
        touched = {name.split(".")[0] for name in imports(tree)} & (EFFECTS | {"sys", "importlib"})
        touched |= named(imports(tree), "mtpbench.store")
        touched |= {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
        }
        assert not touched, f"{path} imports or calls {touched}"


def test_printing_happens_in_the_command_lines_only() -> None:
    offenders = []
    for root in (HARNESS, ANALYSIS):
        for path, tree in modules(root):
            if path.startswith("cli"):
                continue
            calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
            prints = any(isinstance(f, ast.Name) and f.id == "print" for f in calls)
            echoes = any(isinstance(f, ast.Attribute) and f.attr == "echo" for f in calls)
            if prints or echoes:
                offenders.append(path)
    assert offenders == []


TEXT_MODES = re.compile(r"[rwax+t]+")


def reads_in_the_locale(node: ast.AST) -> bool:
    """Whether a call opens a file or a program's output as text, in the encoding that a locale has."""
    if not isinstance(node, ast.Call):
        return False
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if "encoding" in keywords:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    modes = [*node.args, *([keywords["mode"]] if "mode" in keywords else [])]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    if name in ("open", "fdopen"):
        by_name = isinstance(node.func, ast.Name) or name == "fdopen"
        return bool(by_name and not texts) or any(TEXT_MODES.fullmatch(text) for text in texts)
    if name in ("read_text", "write_text"):
        return len(node.args) < (1 if name == "read_text" else 2)
    return any(
        ast.unparse(keywords[word]) == "True" for word in ("text", "universal_newlines") if word in keywords
    )


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("open(path)", True),
        ("path.open('a+')", True),
        ("path.open('ab')", False),
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("subprocess.run(words, text=True)", True),
        ("subprocess.run(words, encoding='utf-8')", False),
        ("store.open()", False),
    ],
)
def test_the_rule_knows_what_reads_in_the_locale(code: str, forbidden: bool) -> None:
    assert any(reads_in_the_locale(node) for node in ast.walk(ast.parse(code))) is forbidden


def test_text_is_read_and_written_in_a_named_encoding() -> None:
    """Files are UTF-8 whatever the locale; so is what other programs say."""
    offenders = [
        f"{path}:{node.lineno}"
        for root in (HARNESS, ANALYSIS)
        for path, tree in modules(root)
        for node in ast.walk(tree)
        # `write_text` of the commands takes a path, and is UTF-8.
        if reads_in_the_locale(node) and ast.unparse(node.func) not in ("read_text", "write_text")  # type: ignore[attr-defined]
    ]
    assert offenders == []


def test_commands_print_through_one_console() -> None:
    """It alone, and `echo` beside it, show markup and control characters in names as text."""
    calls = [
        (path, node)
        for root in (HARNESS, ANALYSIS)
        for path, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    offenders = [path for path, call in calls if ast.unparse(call.func) in ("Console", "rich.print", "print")]
    # What goes out as it is, for programs, is no line.
    offenders += [
        path for path, call in calls if ast.unparse(call.func) == "typer.echo" and not call.keywords
    ]
    assert offenders == []


STARTERS = (
    *("output_check.py", "parsers/asking.py", "provenance.py"),
    *("reaper.py", "remote.py", "slurm/client.py"),
)
"""Where processes are started: the user's evaluation, engines' parsers, servers and simulations, helpers,
Slurm's programs."""
STARTS = {"Popen", "create_subprocess_exec", "create_subprocess_shell", "fork"}


def starts_processes(tree: ast.Module) -> bool:
    """Whether a module starts processes, by `subprocess` or by asyncio."""
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return any(call.attr in STARTS or ast.unparse(call) == "subprocess.run" for call in calls)


def test_processes_are_started_in_few_places() -> None:
    offenders = [
        path for path, tree in modules(HARNESS) if starts_processes(tree) and not path.startswith(STARTERS)
    ]
    assert offenders == []


def test_executors_know_nothing_of_slurm_nor_of_runs() -> None:
    above = (
        "mtpbench.slurm",
        "mtpbench.run",
        "mtpbench.deployment_run",
        "mtpbench.cli",
        "mtpbench.deployment",
    )
    offenders = {
        path: found
        for path, tree in modules(HARNESS)
        if path.startswith(("executors/", "remote.py", "power/"))
        and (found := {name for layer in above for name in named(imports(tree), layer)})
    }
    assert offenders == {}


def test_programs_that_run_on_their_own_need_the_standard_library_only() -> None:
    """`reaper.py` must outlive the harness; `rollcall.py` and the asker run where mtpbench may not be."""
    for path in ("reaper.py", "slurm/rollcall.py", "parsers/asker.py"):
        tree = ast.parse((HARNESS / path).read_text("utf-8"))
        assert {name.split(".")[0] for name in imports(tree)} <= sys.stdlib_module_names


def test_parquet_belongs_to_the_store() -> None:
    offenders = [
        path
        for path, tree in modules(HARNESS)
        if named(imports(tree), "pyarrow") and not path.startswith("store/")
    ]
    assert offenders == []


WRITERS = {
    "executors/": "files and logs of servers",
    "load/worker_pool.py": "what its workers read, in a temporary folder",
    "load/worker.py": "what it recorded, in that folder",
    "parsers/asker.py": "what an engine is asked to read, in a temporary folder",
    "power/agent.py": "its readings, until the point is stored",
    "remote.py": "what helpers print",
    "store/": "results",
}
"""Who may write files, and which; results are written by the store only."""
WRITES = {"write_text", "write_bytes", "rename", "fsync"}


def writes_files(node: ast.AST) -> bool:
    """Whether a node calls what makes, fills, moves or syncs a file."""
    match node:
        case ast.Call(func=ast.Attribute(attr=method)) if method in WRITES:
            return True
        case ast.Call(func=ast.Attribute(attr="replace", value=value), args=args, keywords=[]):
            # Of a path with its target; a text's has two arguments, a date's keywords.
            return ast.unparse(value) == "os" or len(args) == 1
        case ast.Call(func=ast.Attribute(attr="open") | ast.Name(id="open"), args=args, keywords=keywords):
            modes = [*args, *(keyword.value for keyword in keywords if keyword.arg == "mode")]
            texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
            return any(
                isinstance(text, str) and re.fullmatch(r"[rbt]*[wax+][rwaxbt+]*", text) for text in texts
            )
    return False


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("path.open('w')", True),
        ("open(path, mode='ab')", True),
        ("os.replace(a, b)", True),
        ("beside.replace(path)", True),
        ("path.open('rb')", False),
        ("text.replace('a', 'b')", False),
        ("point.replace(seed=1)", False),
    ],
)
def test_the_rule_knows_what_writes(code: str, written: bool) -> None:
    assert any(writes_files(node) for node in ast.walk(ast.parse(code))) is written


@pytest.mark.parametrize(
    ("root", "writers"), [(HARNESS, tuple(WRITERS)), (ANALYSIS, ("cli/",))], ids=["harness", "analysis"]
)
def test_files_are_written_in_few_places_and_results_by_the_store(
    root: Path, writers: tuple[str, ...]
) -> None:
    writing = {path for path, tree in modules(root) if any(map(writes_files, ast.walk(tree)))}
    assert {path for path in writing if not path.startswith(writers)} == set()
    assert {writer for writer in writers if not any(path.startswith(writer) for path in writing)} == set()


FLOORS = {
    HARNESS: """
        errors records redaction input_files yaml_files hardware reaper
        metrics golden served
        power remote
        store workload
        load
        simengine engines
        provenance executors scraper
        error_rate validity sweep plan
        measure progress
        deployment output_check deployment_run run
        slurm snapshot
        parsers
        cli
    """,
    ANALYSIS: """
        numbers frame document spreadsheet
        curves
        importers traces metric metric_table
        compare pairing sentences crossing_sentences
        tables what_if category_table comparison_document
        render chart public_page
        comparisons regression best schedule report
        cli
    """,
}
"""The floors of each half, packages and modules of its root, from the ground up: a floor imports what is on
it or below it. A new module is put on the lowest floor that its imports allow."""


def arrows(root: Path) -> set[tuple[str, str]]:
    """Who imports whom, by package or module of the root."""
    names = {name_of(path) for path, _ in modules(root)}
    return {
        (name_of(path), target)
        for path, tree in modules(root)
        for name in named(imports(tree), root.name)
        if (target := name.removeprefix(f"{root.name}.").split(".")[0]) in names - {name_of(path)}
    }


def name_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("root", FLOORS, ids=lambda root: root.name)
def test_every_module_stands_on_a_floor_and_imports_nothing_above_it(root: Path) -> None:
    floor = {name: level for level, line in enumerate(FLOORS[root].splitlines()) for name in line.split()}
    standing = {name_of(path) for path, _ in modules(root)} - {"__init__", "__main__"}
    assert standing == set(floor), "each package and module has its place in FLOORS"
    upward = {(a, b) for a, b in arrows(root) if a in floor and b in floor and floor[b] > floor[a]}
    assert upward == set()


@pytest.mark.parametrize("root", FLOORS, ids=lambda root: root.name)
def test_no_packages_import_each_other_in_a_circle(root: Path) -> None:
    left = arrows(root)
    while ends := {b for _, b in left} - {a for a, _ in left}:
        left = {(a, b) for a, b in left if b not in ends}
    assert left == set(), "what is left leads back to itself"


MOST_FILES_PER_1000_LINES, LONGEST_FILE = 4.4, 400
"""What is new may bring files of its own, as long as no concept is spread over more of them than before."""
MEDIAN_FUNCTION, LONG_FUNCTION = 6, 19
"""Lines of a function without its docstring: half of all functions are as short as the first, nine of ten as
the second."""


def test_the_house_stays_small() -> None:
    lines = {
        f"{root.name}/{path}": len((root / path).read_text("utf-8").splitlines())
        for root in (HARNESS, ANALYSIS)
        for path, _ in modules(root)
    }
    assert len(lines) <= MOST_FILES_PER_1000_LINES * sum(lines.values()) / 1000
    assert {path: count for path, count in lines.items() if count > LONGEST_FILE} == {}


def test_functions_stay_short() -> None:
    lengths = sorted(
        length_of(node)
        for root in (HARNESS, ANALYSIS)
        for _, tree in modules(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION
    assert lengths[len(lengths) * 9 // 10] <= LONG_FUNCTION


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring."""
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


PROSE = re.compile(
    r"^(reasons?|source|caption|unused|withheld|pinned_by|detail|title|notes?|why|left_out)$"
    r"|_because$|^why_|_reasons?$"
)
"""Names of what is written for people: facts travel as fields beside it, and words are made at the edge."""
TAKES_APART = {
    *("startswith", "endswith", "partition", "rpartition", "split", "removeprefix", "removesuffix"),
    *("find", "index", "replace"),
}
JOINT = re.compile(r"^\W* \W*$")
"""Marks that join words of a sentence (`: `, ` / `), not a blank alone."""
READS_TEXTS = ("store/migration.py", "frame.py")
"""Migration reads the sentences that older schema versions stored; a frame reads the lists that it joined."""


def called(node: ast.expr) -> str:
    """What a value is called; of `str(...)`, of an item and of `or` that which they begin with."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Name(id="str"), args=[inner]) | ast.Subscript(value=inner):
            return called(inner)
        case ast.BoolOp(values=[inner, *_]):
            return called(inner)
    return ""


def is_prose(node: ast.expr) -> bool:
    return PROSE.search(called(node)) is not None


def is_joint(node: ast.expr) -> bool:
    """Whether a value is marks that join the words of a sentence."""
    match node:
        case ast.Constant(value=str(marks)):
            return marks.strip() != "" and JOINT.search(marks) is not None
    return False


def reads_prose(node: ast.AST) -> bool:
    """Whether a node looks into a text that is written for people, or compares it with a sentence."""
    match node:
        case ast.Call(func=ast.Attribute(value=text, attr=method), args=arguments) if method in TAKES_APART:
            return is_prose(text) or any(map(is_joint, arguments))
        case ast.Compare(left=text, ops=[ast.In() | ast.NotIn()], comparators=[where]):
            return is_prose(where)
        case ast.Compare(
            left=text, ops=[ast.Eq() | ast.NotEq()], comparators=[ast.Constant(value=str(said))]
        ):
            return " " in said and is_prose(text)
    return False


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("one.reason.startswith('damaged')", True),
        ("str(ratio.reason).partition(':')[0]", True),
        ("document.caption.split('.')[0]", True),
        ("(reason or file).partition(';')", True),
        ("'not reached' in ratio.reason", True),
        ("ratio.reason == 'not reached'", True),
        ("unused[0].split(' ')", True),
        ("one.kind == 'damaged'", False),
        ("probe.source == 'grace'", False),
        ("path.name.partition('.')", False),
        ("number.side.split(' / ', 1)", True),
        ("caption.replace(': ', ':')", True),
        ("line.split(' ')", False),
    ],
)
def test_looking_into_a_sentence_is_seen(code: str, forbidden: bool) -> None:
    assert any(reads_prose(node) for node in ast.walk(ast.parse(code))) == forbidden


def test_no_code_takes_a_sentence_apart() -> None:
    found = {
        (f"{root.name}/{path}", ast.unparse(node))
        for root in (HARNESS, ANALYSIS)
        for path, tree in modules(root)
        if path not in READS_TEXTS
        for node in ast.walk(tree)
        if reads_prose(node)
    }
    assert found == set()


JS_TAKES_APART = re.compile(
    r"\b(reasons?|source|caption|withheld|detail|title|notes?|why|side|label|sentence)"
    r"(\.(split|startsWith|endsWith|includes|indexOf|match|replace)\(|\.slice\(\d)"
)


def test_the_rule_sees_a_sentence_taken_apart_in_the_script() -> None:
    assert JS_TAKES_APART.search('const [head, rest] = ratio.reason.split(": ");')
    assert not JS_TAKES_APART.search('reasons.join(", ")')


def test_no_script_takes_a_sentence_apart() -> None:
    scripts = sorted((ANALYSIS / "report" / "script").glob("*.js"))
    assert len(scripts) > 10
    found = {
        (script.name, number)
        for script in scripts
        for number, line in enumerate(script.read_text("utf-8").splitlines(), 1)
        if JS_TAKES_APART.search(line)
    }
    assert found == set()


def lets_a_line_s_end_through(tree: ast.Module) -> set[str]:
    """Patterns that end in `$` and are matched from the start: `$` also matches before a last line's end."""
    ending = {
        node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and re.search(r"re\.compile\(.*(?<!\\)\$['\"]\)$", ast.unparse(node.value))
    }
    matched = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    return {name for name in ending if f"{name}.match" in matched}


def test_the_rule_sees_a_pattern_that_lets_a_line_s_end_through() -> None:
    assert lets_a_line_s_end_through(ast.parse("A = re.compile('^a$')\nA.match(text)")) == {"A"}
    assert not lets_a_line_s_end_through(ast.parse("A = re.compile('a')\nA.fullmatch(text)"))


def test_names_are_matched_in_full() -> None:
    found = {path: lets_a_line_s_end_through(tree) for r in (HARNESS, ANALYSIS) for path, tree in modules(r)}
    assert {path: names for path, names in found.items() if names} == {}
