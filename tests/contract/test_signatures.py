"""Public signatures and their shapes stay as they are until someone means to change them."""

from __future__ import annotations

import pytest

from tests.contract.signatures.freeze import FOLDER, LAYERS, page, signatures
from tests.contract.source import Module


@pytest.mark.parametrize("layer", LAYERS)
def test_signatures_are_frozen(layer: str) -> None:
    frozen = (FOLDER / f"{layer}.txt").read_text(encoding="utf-8").splitlines()
    now = page(layer).splitlines()
    gone, new = sorted(set(frozen) - set(now)), sorted(set(now) - set(frozen))
    assert (gone, new) == ([], []), "meant? then run `python -m tests.contract.signatures.freeze`"


def test_each_text_file_is_of_a_layer() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(LAYERS)


@pytest.mark.parametrize(
    "changed",
    [
        "def f(a: Float[Tensor, 'T B']) -> Float[Tensor, 'B']: ...",
        "def f(a: Float[Tensor, 'B T'], *, b: int = 0) -> Float[Tensor, 'B']: ...",
        "def f(a: Float[Tensor, 'B T']) -> Float[Tensor, 'T']: ...",
        "def g(a: Float[Tensor, 'B T']) -> Float[Tensor, 'B']: ...",
    ],
)
def test_a_change_is_seen(changed: str) -> None:
    before = "def f(a: Float[Tensor, 'B T']) -> Float[Tensor, 'B']: ..."
    assert list(signatures(Module("covent.core.made_up", before))) != list(
        signatures(Module("covent.core.made_up", changed))
    )


def test_what_is_not_public_may_change() -> None:
    text = "def _f(a): ...\nclass _C:\n    x: int\n"
    assert list(signatures(Module("covent.core.made_up", text))) == []
    fields = list(signatures(Module("covent.core.made_up", "class C(NamedTuple):\n    x: int = 3\n    _y: int\n")))
    assert fields == ["covent.core.made_up.C(NamedTuple)", "covent.core.made_up.C.x: int = 3"]
