"""`import hushrec` offers exactly what it lists, each name from the module where it lives, and loads nothing before."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import hushrec
import pytest
from hushrec_privacy import errors

HEAVY = ("numpy", "msgspec", "onnxruntime", "sqlite3", "cryptography", "hashlib", "hushrec_privacy", "hushrec.bundle")


@pytest.mark.parametrize("name", hushrec.__all__)
def test_every_listed_name_is_there_and_under_its_own_name(name: str) -> None:
    assert getattr(hushrec, name).__name__ == name
    assert name in dir(hushrec)


def test_every_error_of_the_tree_is_importable() -> None:
    assert set(errors.__all__) <= set(hushrec.__all__)


def test_what_checkers_see_is_what_is_listed() -> None:
    tree = ast.parse(Path(hushrec.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(seen) == sorted(hushrec.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="recomender"):
        hushrec.recomender  # noqa: B018
    with pytest.raises(ImportError):
        exec("from hushrec import Recomender")


def printed_by(code: str) -> str:
    """What a fresh process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def loaded_after(statement: str) -> set[str]:
    return set(printed_by(f"{statement}; import sys; print(*sys.modules)").split())


def test_importing_the_package_loads_none_of_its_parts() -> None:
    assert not loaded_after("import hushrec") & set(HEAVY)


def test_a_name_loads_only_what_it_needs() -> None:
    assert not loaded_after("from hushrec import BundleError") & {"numpy", "msgspec", "sqlite3"}
    assert not loaded_after("from hushrec import Bundle, Catalog, pack") & {"onnxruntime", "sqlite3", "cryptography"}
    assert not loaded_after("from hushrec import Recommender") & {"torch", "onnx", "polars", "scipy", "cryptography"}


def test_recommending_loads_nothing_of_training() -> None:
    loaded = loaded_after("from hushrec import Bundle, Recommender")
    assert not {name for name in loaded if name.startswith(("hushrec.federated", "hushrec.weights"))}


def test_training_and_releases_load_no_library_before_they_run() -> None:
    loaded = loaded_after("import hushrec.federated.trainer, hushrec.federated.release")
    assert not loaded & {"onnxruntime", "torch", "onnx", "polars", "scipy", "sqlite3", "cryptography"}


@pytest.mark.parametrize("collecting", ["enable", "disable"])
def test_loading_a_name_leaves_garbage_collection_as_it_was(collecting: str) -> None:
    code = f"import gc; gc.{collecting}(); import hushrec; hushrec.Bundle; print(gc.isenabled(), gc.get_freeze_count())"
    assert printed_by(code) == f"{collecting == 'enable'} 0\n"


def test_two_threads_that_load_at_once_leave_garbage_collection_on() -> None:
    code = (
        "import gc, hushrec, threading\n"
        "names = [name for name in hushrec.__all__ if name in hushrec._HOME]\n"
        "threads = [threading.Thread(target=getattr, args=(hushrec, name)) for name in names]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print(gc.isenabled(), gc.get_freeze_count(), all(hasattr(hushrec, name) for name in names))"
    )
    assert printed_by(code) == "True 0 True\n"


def test_objects_that_the_program_froze_stay_frozen() -> None:
    code = "import gc, hushrec; gc.freeze(); n = gc.get_freeze_count(); hushrec.Bundle; print(n, gc.get_freeze_count())"
    before, after = map(int, printed_by(code).split())
    assert before > 1_000
    assert before - 100 < after <= before  # a few may have died


def test_a_cycle_of_the_program_is_still_collected() -> None:
    code = (
        "import gc, weakref, hushrec; hushrec.Bundle\n"
        "class Loop: pass\n"
        "one = Loop(); one.self = one; gone = weakref.ref(one); hushrec.Recommender\n"
        "del one; gc.collect(); print(gone())"
    )
    assert printed_by(code) == "None\n"


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_crosses_a_process_pool_whole(name: str) -> None:
    error = getattr(errors, name)("items.bin: is damaged")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error) == again.message
    assert (again.code, again.exit_code) == (error.code, error.exit_code)


def test_codes_of_errors_are_distinct() -> None:
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert len(set(codes)) == len(codes)
