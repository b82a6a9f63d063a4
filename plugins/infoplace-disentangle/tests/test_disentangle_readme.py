"""The README's examples run, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pyro

import infoplace_disentangle

README = Path(__file__).parents[1] / "README.md"


def test_the_readmes_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyro.clear_param_store()
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for name in infoplace_disentangle.__all__:
        assert f'make_objective("{getattr(infoplace_disentangle, name).spec_name}"' in text
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    for term in set(re.findall(r'"([a-z_]+(?:/[a-z_]+)?)"(?=\n)', text)):
        assert f"'{term}'" in printed, term
