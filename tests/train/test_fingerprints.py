"""Which files beside a reward function count as its code, beside what Python itself loads."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from covent.train.fingerprints import code_hash, config_hash, imported_files, tokenizer_hash

FILES = {
    "rewards.py": "import json, numbers_of_it as n\nfrom package import inner\nfrom package.deep.er import name\n",
    "numbers_of_it.py": "from rewards_too import *\n",
    "rewards_too.py": "import numbers_of_it\n",
    "package/__init__.py": "",
    "package/inner.py": "from . import sibling\nfrom .other import thing\n",
    "package/sibling.py": "",
    "package/other.py": "from .deep import x\nthing = 1\n",
    "package/deep/__init__.py": "x = 1\n",
    "package/deep/er.py": "from ..last import name\n",
    "package/last.py": "name = 1\n",
}
UNREAD = {"unread.py": "", "package/unread.py": "", "__init__.py": "", "data.json": "{}", "broken.py": "def"}
LOADED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import rewards
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
print(json.dumps(sorted(file for file in files if file and file.startswith(sys.argv[1]))))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (FILES | UNREAD).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path.resolve()


def test_they_are_those_that_python_loads(folder: Path) -> None:
    found = imported_files(folder / "rewards.py")
    told = subprocess.run([sys.executable, "-Bc", LOADED, str(folder)], capture_output=True, text=True, check=True)
    assert sorted(map(str, found)) == json.loads(told.stdout)
    assert {str(path.relative_to(folder)) for path in found} == set(FILES)


@pytest.mark.parametrize(
    "text",
    [
        "def late():\n    import unread\n",
        "try:\n    from unread import a\nexcept ImportError:\n    pass\n",
        "if True:\n    import unread as u\n",
    ],
)
def test_an_import_counts_wherever_it_stands(text: str, folder: Path) -> None:
    (folder / "rewards.py").write_text(text)
    assert imported_files(folder / "rewards.py") == {folder / "rewards.py", folder / "unread.py"}


@pytest.mark.parametrize("text", ["import broken", "from ....... import x", "from .. import x", "import os.path", "\0"])
def test_what_is_elsewhere_or_broken_ends_there(text: str, folder: Path) -> None:
    (folder / "rewards.py").write_text(text)
    assert imported_files(folder / "rewards.py") - {folder / "broken.py"} == {folder / "rewards.py"}


def test_each_of_them_changes_the_hash_and_no_other(folder: Path) -> None:
    before = code_hash(folder / "rewards.py")
    for name, text in (FILES | UNREAD).items():
        (folder / name).write_text(text + " \n")
        assert (code_hash(folder / "rewards.py") != before) == (name in FILES)
        (folder / name).write_text(text)
    assert code_hash(folder / "rewards.py") == before


@pytest.mark.parametrize(
    ("name", "hashes"),
    [
        ("config.json", {"config"}),
        ("generation_config.json", {"config"}),
        *(
            (name, {"tokenizer"})
            for name in (
                "tokenizer.json",
                "tokenizer_config.json",
                "tokenizer.model",
                "special_tokens_map.json",
                "added_tokens.json",
                "vocab.json",
                "merges.txt",
                "chat_template.jinja",
                "additional_chat_templates/tools.jinja",
            )
        ),
        ("model.safetensors", set()),
        ("README.md", set()),
    ],
)
def test_each_file_of_a_model_folder(name: str, hashes: set[str], tmp_path: Path) -> None:
    def now() -> dict[str, str]:
        return {"config": config_hash(tmp_path), "tokenizer": tokenizer_hash(tmp_path)}

    seen = [now()]
    for text in ("1", "2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        seen.append(now())
    for before, after in pairwise(seen):
        assert {each for each in before if before[each] != after[each]} == hashes
