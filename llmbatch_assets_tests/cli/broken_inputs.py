"""Typical broken inputs, each one change to a working project. ``broken_inputs.json`` has the exact messages.

After rewording a message, regenerate them with ``python -m llmbatch_assets_tests.cli.broken_inputs`` and review the diff.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from llmbatch_assets_tests.project import COLUMNS, GENERATION, JUDGE, SCHEMA, Project, make_project, settings

Spoil = Callable[[Project], object]
MESSAGES = Path(__file__).with_name("broken_inputs.json")
CONFIG, TABLE, SCHEMA_PY = "configs/parameters.yaml", "raw_data/input.csv", "schema/llm_schema.py"
GENERATION_YAML, JUDGE_YAML = "prompts/generation.yaml", "prompts/judge.yaml"
KEY = "sk-proj-abcDEF0123456789abcDEF0123456789"
BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]
)
JUDGED = {"judge": {"enabled": True}}
GROUPED = {"enabled": True, "column": "team", "mode": "group_output"}


def text(relative: str, content: str) -> Spoil:
    """Replace a file."""
    return lambda project: project.write(relative, content)


def raw(relative: str, content: bytes) -> Spoil:
    """Replace a file with bytes."""
    return lambda project: project.path(relative).write_bytes(content)


def gone(relative: str) -> Spoil:
    """Delete a file."""
    return lambda project: project.path(relative).unlink()


def blocks(**changed: Any) -> Spoil:
    """Change blocks of the configuration."""
    return lambda project: project.parameters(**settings(**changed))


def server(base_url: str, **llm: Any) -> Spoil:
    """Call a server at this address."""
    return blocks(llm={"provider": "openai", "base_url": base_url, **llm})


def generation(**changed: Any) -> Spoil:
    """Change keys of the generation prompt."""
    return lambda project: project.prompt("generation", {**GENERATION, **changed})


def judge(**changed: Any) -> Spoil:
    """Judge outputs, with changed keys of the judge's prompt."""
    return several(blocks(prompts=JUDGED), lambda project: project.prompt("judge", {**JUDGE, **changed}))


def schema(old: str, new: str) -> Spoil:
    """Replace a part of the schema module."""
    assert old in SCHEMA
    return text(SCHEMA_PY, SCHEMA.replace(old, new))


def second(first: dict[str, Any], other: dict[str, Any]) -> Spoil:
    """Add another batch."""
    return several(
        blocks(**first), lambda project: project.write("configs/second.yaml", yaml.safe_dump(settings(**other)))
    )


def several(*spoils: Spoil) -> Spoil:
    """Make several changes."""
    return lambda project: [spoil(project) for spoil in spoils]


def folder(relative: str) -> Spoil:
    """Put a folder in the place of a file."""

    def spoil(project: Project) -> None:
        project.path(relative).unlink(missing_ok=True)
        project.path(relative).mkdir(parents=True)

    return spoil


def link(relative: str, target: str) -> Spoil:
    """Link to a file of the project."""

    def spoil(project: Project) -> None:
        project.path(relative).parent.mkdir(exist_ok=True)
        project.path(relative).symlink_to(project.path(target))

    return spoil


PLAIN = "llm: {provider: offline}\n"
BROKEN: dict[str, Spoil] = {
    # The configuration as YAML.
    "config: tab": text(CONFIG, "llm:\n\tprovider: offline\n"),
    "config: tab after spaces": text(CONFIG, "llm:\n  provider: offline\n\tseed: 1\n"),
    "config: less indentation": text(CONFIG, "llm:\n  provider: offline\n seed: 1\n"),
    "config: more indentation": text(CONFIG, "llm:\n  provider: offline\n    seed: 1\n"),
    "config: open bracket": text(CONFIG, f"{PLAIN}outputs: {{formats: [csv\n"),
    "config: open quote": text(CONFIG, f"{PLAIN}run:\n  name: 'a\n"),
    "config: colon in text": text(CONFIG, f"{PLAIN}run:\n  name: night: shift\n"),
    "config: no colon": text(CONFIG, "llm:\n  provider offline\n"),
    "config: alias": text(CONFIG, f"{PLAIN}run: {{name: *bold}}\n"),
    "config: Windows path": text(CONFIG, f'{PLAIN}input: {{path: "C:\\data\\x.csv"}}\n'),
    "config: two documents": text(CONFIG, f"{PLAIN}---\n{PLAIN}"),
    "config: key twice": text(CONFIG, f"{PLAIN}{PLAIN}"),
    "config: code": text(CONFIG, "llm: !!python/object/apply:os.system [id]\n"),
    "config: alias bomb": text(CONFIG, f"{PLAIN}{BOMB}\n"),
    "config: endless alias": text(CONFIG, "llm: &a {extra_body: *a}\n"),
    "config: deep": text(CONFIG, f"llm: {'[' * 200}\n"),
    "config: large": text(CONFIG, f"{PLAIN}# {'x' * 1_000_000}\n"),
    "config: list": text(CONFIG, "- llm\n"),
    "config: text": text(CONFIG, "provider=offline\n"),
    "config: not UTF-8": raw(CONFIG, b"run: {name: caf\xe9}\n"),
    "config: control character": raw(CONFIG, b"run: {name: a\x07b}\n"),
    "config: not a date": text(CONFIG, f"{PLAIN}run: {{name: 2026-02-30}}\n"),
    "config: infinity": text(CONFIG, "llm: {provider: offline, extra_body: {a: .inf}}\n"),
    # Its keys.
    "key: wrong block": text(CONFIG, f"{PLAIN}model_name: gpt-4o\n"),
    "key: block within block": text(CONFIG, "llm: {provider: offline, outputs: {formats: [csv]}}\n"),
    "key: misspelt": blocks(llm={"modle_name": "x"}),
    "key: misspelt block": text(CONFIG, "lmm: {provider: offline}\n"),
    "key: unlike any": blocks(run={"colour": "blue"}),
    "key: nested": blocks(outputs={"explode": {"key": "x"}}),
    "key: moved": blocks(judge={"enabled": True}),
    "key: price": blocks(budget={"prices": {"m": {"input": 1, "outptu": 2}}}),
    # Its values.
    "value: none": text(CONFIG, "llm:\n  provider: offline\n  max_workers:\n"),
    "value: none for a list": text(CONFIG, f"{PLAIN}outputs:\n  formats:\n"),
    "value: text for a list": blocks(outputs={"formats": "csv"}),
    "value: format": blocks(outputs={"formats": ["csv", "excel"]}),
    "value: number for text": blocks(llm={"model_name": 4}),
    "value: quoted number": blocks(llm={"max_workers": "8"}),
    "value: word for a number": blocks(llm={"temperature": "hot"}),
    "value: word for true or false": blocks(cache={"enabled": "maybe"}),
    "value: text for a block": text(CONFIG, "llm: gpt-4o\n"),
    "value: too large": blocks(llm={"temperature": 3}),
    "value: too small": blocks(llm={"max_workers": 0}),
    "value: wrong case": blocks(run={"log_level": "info"}),
    "value: provider": blocks(llm={"provider": "OpenAI"}),
    "value: empty": blocks(llm={"model_name": ""}),
    "value: time zone": blocks(run={"timezone": "CEST"}),
    "value: encoding": blocks(input={"encoding": "utf-9"}),
    "value: grouping mode": blocks(grouping={**GROUPED, "mode": "group_outputs"}),
    "value: sheet": blocks(input={"sheet": [1]}),
    "value: delimiter": blocks(input={"delimiter": "tab"}),
    "value: variable not set": text(CONFIG, f"{PLAIN}run: {{name: {{env: NO_SUCH_VARIABLE}}}}\n"),
    "rule: grouping without column": blocks(grouping={"enabled": True}),
    "rule: include nothing": blocks(context={"columns": {"mode": "include"}}),
    "rule: part of explode": blocks(outputs={"explode": {"list": "answers"}}),
    "rule: address without openai": blocks(llm={"base_url": "http://127.0.0.1:9/v1"}),
    "rule: another local model": blocks(llm={"provider": "local", "model_name": "llama"}),
    "rule: one path twice": blocks(outputs={"csv_path": "a", "psv_path": "a"}),
    "rule: judge's rate": blocks(judge={"requests_per_minute": 5}, prompts=JUDGED),
    # Addresses.
    "address: endpoint": server("https://host/v1/chat/completions"),
    "address: models": server("https://host/v1/models/"),
    "address: port": server("http://127.0.0.1:99999/v1"),
    "address: no port": server("http://127.0.0.1:port/v1"),
    "address: blank": server("https://my host/v1"),
    "address: no scheme": server("localhost:8000/v1"),
    "address: scheme": server("htps://host/v1"),
    "address: example": server("https://<your-host>/v1"),
    "address: key": server(f"https://host/v1?key={KEY}"),
    "address: user": server("https://user:password1@host/v1"),
    # Keys where none belong.
    "secret: api_key": blocks(llm={"api_key": KEY}),
    "secret: api_key outside of llm": blocks(judge={"api_key": "abc"}),
    "secret: in place of its name": blocks(llm={"api_key_env": KEY}),
    "secret: model": blocks(llm={"model_name": KEY}),
    "secret: extra_body": blocks(llm={"extra_body": {"metadata": {"note": KEY}}}),
    "secret: header": blocks(llm={"extra_body": {"headers": {"Authorization": "x"}}}),
    "secret: address": server(f"https://host/{KEY}/v1"),
    "secret: name": blocks(run={"name": f"run with {KEY}"}),
    "secret: path": blocks(input={"path": f"raw_data/{KEY}.csv"}),
    "secret: key": blocks(llm={KEY: 1}),
    "secret: number": blocks(llm={"max_workers": KEY}),
    # Prompts.
    "prompt: missing": gone(GENERATION_YAML),
    "prompt: folder": folder(GENERATION_YAML),
    "prompt: misspelt key": generation(systm="x"),
    "prompt: no user": text(GENERATION_YAML, "system: Answer.\n"),
    "prompt: empty user": generation(user=""),
    "prompt: null": generation(user=None),
    "prompt: unquoted placeholder": text(GENERATION_YAML, "user: {context}\n"),
    "prompt: unquoted text": text(GENERATION_YAML, "user: {context} please\n"),
    "prompt: text below its key": text(GENERATION_YAML, "user: Answer {row}.\nIt is short.\n"),
    "prompt: examples": generation(examples=[{"user": "q", "output": "a"}]),
    "prompt: placeholder": generation(user="{contxt}"),
    "prompt: column": generation(user="{Question}"),
    "prompt: quoted column": generation(user='{"no column"}'),
    "prompt: output": generation(user="{question} {output_json}"),
    "prompt: excluded column": several(
        blocks(context={"columns": {"exclude": ["question"]}}), generation(user="{question}")
    ),
    "prompt: column of a group": several(blocks(grouping=GROUPED), generation(user="{team}: {question}")),
    "prompt: only what is empty": several(blocks(grouping=GROUPED), generation(user="{group_context}")),
    "prompt: two columns": several(text(TABLE, "id,a b,a-b\nq1,x,y\n"), generation(user="{a_b}")),
    "prompt: alias bomb": text(GENERATION_YAML, f"user: '{{context}}'\n{BOMB}\n"),
    "prompt: not UTF-8": raw(GENERATION_YAML, b"user: caf\xe9 {context}\n"),
    "judge: missing": several(judge(), gone(JUDGE_YAML)),
    "judge: placeholder": judge(user="{answer}"),
    # The schema.
    "schema: missing": gone(SCHEMA_PY),
    "schema: folder": folder(SCHEMA_PY),
    "schema: not Python": text(SCHEMA_PY, "class LLMOutput(\n"),
    "schema: empty": text(SCHEMA_PY, ""),
    "schema: no verdict": several(judge(), text(SCHEMA_PY, SCHEMA.partition("class JudgeResult")[0])),
    "schema: import": schema("from typing", "import os\nfrom typing"),
    "schema: plain import of a known module": schema("from typing", "import typing as t\nfrom typing"),
    "schema: validator": schema(
        "class JudgeResult", "    @property\n    def sure(self) -> bool:\n        return True\n\n\nclass JudgeResult"
    ),
    "schema: no model": text(SCHEMA_PY, "class LLMOutput: pass\n"),
    "schema: no fields": text(SCHEMA_PY, "from pydantic import BaseModel\n\n\nclass LLMOutput(BaseModel): pass\n"),
    "schema: two outputs": text(SCHEMA_PY, SCHEMA + SCHEMA),
    "schema: alias of no type": schema("class LLMOutput", "Short = list[Text]\n\n\nclass LLMOutput"),
    "schema: member of no enum": schema("certain: bool =", "certain: bool = Rank.ONE  #"),
    "schema: call": schema('"""A verdict."""', '"""A verdict."""\n\n    open("stolen", "w")'),
    "schema: unknown type": schema("certain: bool", "certain: Boolean"),
    "schema: not UTF-8": raw(SCHEMA_PY, SCHEMA.replace("How good", "caf\xe9").encode("latin-1")),
    # The table.
    "table: missing": gone(TABLE),
    "table: misspelt": blocks(input={"path": "raw_data/inputs.csv"}),
    "table: folder": folder(TABLE),
    "table: empty": text(TABLE, ""),
    "table: ragged": text(TABLE, "id,team,question\nq1,red,Why?\nq2,red\n"),
    "table: unnamed column": text(TABLE, "id,,question\nq1,red,Why?\n"),
    "table: column twice": text(TABLE, "id,id,question\nq1,red,Why?\n"),
    "table: not UTF-8": raw(TABLE, b"id,team\nq1,caf\xe9\n"),
    "table: no extension": blocks(input={"path": "raw_data/input"}),
    "table: no workbook": several(text("raw_data/a.xlsx", "id\n1\n"), blocks(input={"path": "raw_data/a.xlsx"})),
    "table: no parquet": several(text("raw_data/a.parquet", "id\n1\n"), blocks(input={"path": "raw_data/a.parquet"})),
    "table: no JSON": several(text("raw_data/a.jsonl", "{'id': 1}\n"), blocks(input={"path": "raw_data/a.jsonl"})),
    # Columns and fields that do not exist.
    "column: required": blocks(input={"required_columns": ["answer"]}),
    "column: grouping": blocks(grouping={"enabled": True, "column": "Team"}),
    "column: label": blocks(work_items={"label_column": "name"}),
    "column: include": blocks(context={"columns": {"mode": "include", "include": ["questions"]}}),
    "column: exclude": blocks(context={"columns": {"exclude": ["secret"]}}),
    "column: exclude all": blocks(context={"columns": {"exclude": list(COLUMNS)}}),
    "column: row template": blocks(context={"row_template": "{quesion}"}),
    "column: group template": blocks(context={"group_header_template": "{key}"}),
    "column: count_by": blocks(report={"count_by": ["teams"]}),
    "column: explode": blocks(
        grouping=GROUPED, outputs={"explode": {"list": "answers", "item_key": "id", "input_column": "id"}}
    ),
    "budget: unknown price": blocks(
        llm={"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEST_KEY"},
        budget={"max_cost_usd": 1},
    ),
    # Paths that a run would overwrite.
    "path: table": blocks(outputs={"formats": ["csv"], "csv_path": TABLE}),
    "path: table in capitals": blocks(outputs={"formats": ["csv"], "csv_path": "RAW_DATA/INPUT.CSV"}),
    "path: table by a link": several(
        link("made/out.csv", TABLE), blocks(outputs={"formats": ["csv"], "csv_path": "made/out.csv"})
    ),
    "path: prompt": blocks(report={"md_path": GENERATION_YAML}),
    "path: configuration": blocks(report={"html_path": CONFIG}),
    "path: schema": blocks(run={"log_file": SCHEMA_PY}),
    "path: schema text": blocks(llm_schema={"txt_path": SCHEMA_PY}),
    "path: call log": blocks(outputs={"formats": ["jsonl"], "jsonl_path": "artifacts/cache/usage.jsonl"}),
    "path: beside the configurations": blocks(outputs={"not_exported_path": "configs/left_out.yaml"}),
    "path: keys": blocks(outputs={"not_exported_path": "credentials.yaml"}),
    "path: another output": blocks(outputs={"formats": ["csv"], "csv_path": "made"}, report={"md_path": "made"}),
    "path: folder of artifacts": blocks(outputs={"formats": ["jsonl"], "jsonl_path": "artifacts/cache/llm_outputs/a"}),
    "path: folder": several(folder("made"), blocks(outputs={"formats": ["csv"], "csv_path": "made"})),
    "path: below a file": blocks(outputs={"formats": ["csv"], "csv_path": "raw_data/input.csv/out.csv"}),
    "path: file for a folder": blocks(artifacts={"dir": TABLE}),
    "path: own table": several(
        text("raw_data/other.csv", "a,b\n1,2\n"), blocks(outputs={"formats": ["csv"], "csv_path": "raw_data/other.csv"})
    ),
    "path: own page": several(text("README.md", "# Read me\n"), blocks(report={"md_path": "README.md"})),
    "path: own notes": several(text("notes/all.txt", "my notes\n"), blocks(run={"log_file": "notes/all.txt"})),
    # Two batches.
    "batches: artifacts": second({"artifacts": {"dir": "made"}}, {"artifacts": {"dir": "made"}}),
    "batches: cache": second({}, {"cache": {"dir": "artifacts/cache"}}),
    "batches: nested": second({}, {"artifacts": {"dir": "artifacts/cache/second"}}),
    "batches: export": second({"outputs": {"csv_path": "a.csv"}}, {"outputs": {"csv_path": "a.csv"}}),
    "batches: report": second({"report": {"md_path": "r.md"}}, {"report": {"html_path": "r.md"}}),
    "batches: configuration": second({"report": {"md_path": "configs/second.yaml"}}, {}),
    # Several at once.
    "everything": several(
        blocks(
            llm={"modle_name": "x", "temperature": 9},
            grouping={"enabled": True, "column": "group"},
            report={"count_by": ["teams"]},
            input={"required_columns": ["price"]},
        ),
        generation(user="{contxt}", systm="x"),
        text(SCHEMA_PY, "import os\n" + SCHEMA.replace("certain: bool", "certain: os.PathLike")),
        text(TABLE, "id,team,question\nq1,red,Why?\n"),
    ),
}


def mistakes_of(project: Project) -> list[str]:
    """The mistakes that ``llmbatch check`` prints for the default batch, with the project's folder as ROOT."""
    ended = project.llmbatch_here("check", "--config", CONFIG)
    lines = [line.removeprefix("mistake: ") for line in ended.stdout.splitlines() if line.startswith("mistake: ")]
    return [line.replace(str(project.root), "ROOT") for line in lines]


def expected() -> dict[str, list[str]]:
    """The exact mistakes of each broken input."""
    content: dict[str, list[str]] = json.loads(MESSAGES.read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Write the messages as they are now."""
    found = {}
    for name, spoil in BROKEN.items():
        with tempfile.TemporaryDirectory() as root:
            project = make_project(Path(root).resolve() / "project")
            spoil(project)
            found[name] = mistakes_of(project)
    MESSAGES.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(found)} broken inputs\n")


if __name__ == "__main__":
    main()
