"""A schema module is found complete in an answer, whatever the model writes around it."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch_assets.domain.prompt import Example, PromptTemplate
from llmbatch_assets.domain.schema.writing import NO_TASK, generated_from, python_of, schema_conversation
from llmbatch_assets.errors import AnswerError, PromptError
from llmbatch_assets_tests.domain.strategies import parameters, quick

CODE = '''"""Outputs."""

from pydantic import BaseModel, Field

MOST = 9


class LLMOutput(BaseModel):
    """An answer."""

    text: str = Field(..., max_length=MOST)


class JudgeResult(BaseModel):
    score: int
'''
OTHER = "class Example(BaseModel):\n    x: int\n"
SHELL = "```bash\npip install pydantic\n```"

ANSWERS = {
    # The whole answer.
    "plain": CODE,
    "blank lines around it": f"\n\n{CODE}\n\n\n",
    "fenced": f"```python\n{CODE}```",
    # Fences of all sorts.
    **{
        f"fenced as {word or 'nothing'}": f"```{word}\n{CODE}```\n"
        for word in ("", "py", "Python", "python3", "pydantic")
    },
    "fenced with tildes": f"~~~python\n{CODE}~~~\n",
    "fenced with four": f"````python\n{CODE}````\n",
    "fenced with more in the line": f'```python title="llm_schema.py"\n{CODE}```\n',
    "fenced with a blank": f"``` python \n{CODE}``` \n",
    "fenced in a list": "1. The module:\n\n"
    + "".join(f"   {line}".rstrip() + "\n" for line in f"```python\n{CODE}```".splitlines()),
    "closed at the end of the code's last line": f"```python\n{CODE.rstrip()}```\n",
    "opened on the line of the code": f"```python {CODE}```\n",
    "opened on the line of the code without a word": f"```{CODE}```\n",
    "opened in the middle of a line": f"The module: ```python\n{CODE}```\n",
    "not closed": f"```python\n{CODE}",
    "only closed": f"{CODE}```\n",
    # Prose.
    "prose around fences": f"Sure! Here is the class you want:\n\n```python\n{CODE}```\n\nIt has a class for each model.",
    "prose before code": f"Sure! Here is the module:\n\n{CODE}",
    "prose after code": f"{CODE}\nThis module holds two models.\n\n- LLMOutput: the answer\n* JudgeResult: the verdict\n",
    "prose after the last fence's line": f"```python\n{CODE}```\nLet me know if `LLMOutput` needs more fields!",
    # Thoughts.
    "thoughts before it": f"<think>\nMaybe ```python\n{OTHER}```?\n</think>\n```python\n{CODE}```\n",
    "thoughts and no fences": f"<think>class X(BaseModel):\n</think>\n\n{CODE}",
    # Line ends and blanks as editors and browsers make them.
    "Windows line ends": f"```python\n{CODE}```\n".replace("\n", "\r\n"),
    "Windows line ends and no fences": CODE.replace("\n", "\r\n"),
    "no-break spaces": f"```python\n{CODE}```".replace("    ", "\u00a0\u00a0 \u00a0"),
    "a byte order mark": f"\ufeff{CODE}",
    # Choice of the block.
    "a shell block before": f"{SHELL}\n\n```python\n{CODE}```\n",
    "a shell block before code without fences": f"{SHELL}\n\n{CODE}",
    "a Python block without a class before": f"```python\nimport pydantic\n```\n\n```python\n{CODE}```\n",
    "a Python block after another one": f"```\n{OTHER}```\n\n```python\n{CODE}```\n",
    "the first of two Python blocks": f"```python\n{CODE}```\n\nUse it so:\n\n```python\n{OTHER}```\n",
    "a text block where none is Python": f"```text\nno code\n```\n```text\n{CODE}```\n",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_module_is_taken_out_of_the_answer(name: str) -> None:
    assert python_of(ANSWERS[name]) == CODE


@quick
@given(
    before=st.sampled_from(["", "Here it is:\n\n", SHELL + "\n\n", "<think>Hm.</think>\n"]),
    fence=st.sampled_from(["```", "````", "~~~"]),
    language=st.sampled_from(["", "python", "py", "Python"]),
    closed=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_no_wrapping_of_a_block_changes_what_is_in_it(
    before: str, fence: str, language: str, closed: bool, line_end: str
) -> None:
    answer = f"{before}{fence}{language}\n{CODE}{fence if closed else ''}"
    assert ast.dump(ast.parse(python_of(answer.replace("\n", line_end)))) == ast.dump(ast.parse(CODE))


@pytest.mark.parametrize(
    "answer",
    [
        # Nothing, or nothing useful.
        "",
        "I would rather not.",
        SHELL,
        "```python\n```",
        "```python\nLIMIT = 3\n```",
        '{"type": "object"}',
        "A class is a thing.",
        # Only inside the thinking block.
        f"<think>I could write\n```python\n{CODE}```\nbut",
    ],
    ids=repr,
)
def test_the_feedback_for_an_answer_without_a_class_says_what_is_missing(answer: str) -> None:
    with pytest.raises(AnswerError) as refused:
        python_of(answer)
    assert refused.value.cause == "no_code"
    assert "Python" in str(refused.value)


def test_a_truncated_class_is_not_repaired() -> None:
    # Without its last line it would be a valid schema that lacks a field.
    cut = CODE[: CODE.index("max_length")]
    assert python_of(cut) == cut + "\n"
    with pytest.raises(SyntaxError):
        ast.parse(python_of(cut))


@quick
@given(st.text("`~\n python<think>class X(BaseModel):/", max_size=200))
def test_any_text_is_code_with_a_class_or_is_refused(text: str) -> None:
    try:
        assert "class " in python_of(text)
    except AnswerError:
        return


# The request.

GENERATION = PromptTemplate(
    path="g.yaml",
    system="Answer as {llm_schema}.",
    user="{context}\n\nGive {{topic}} and answer.",
    examples=(Example(user="Q?", assistant='{"topic": "t"}'),),
)
SCHEMA_PROMPT = PromptTemplate(path="s.yaml", system="Write models.", user="{context}\n\nFor: {task}")


def test_the_model_sees_the_generation_prompt_with_its_placeholders() -> None:
    [system, user] = schema_conversation(SCHEMA_PROMPT, GENERATION, "study cards")
    assert system == ("system", "Write models.")
    assert user.content.startswith("The prompt whose answers the schema describes")
    for part in (
        "[system]\nAnswer as {llm_schema}.",
        "{context}\n\nGive {{topic}}",
        "Q?",
        '{"topic": "t"}',
        "For: study cards",
    ):
        assert part in user.content


@pytest.mark.parametrize("task", ["", "  \n"])
def test_a_missing_task_is_stated(task: str) -> None:
    assert NO_TASK in schema_conversation(SCHEMA_PROMPT, GENERATION, task)[1].content


def test_a_task_with_braces_is_taken_as_it_is() -> None:
    assert (
        "For: {context} and {more}" in schema_conversation(SCHEMA_PROMPT, GENERATION, "{context} and {more}")[1].content
    )


def test_an_unknown_placeholder_is_reported() -> None:
    with pytest.raises(PromptError, match=r"s\.yaml: unknown placeholder \{row\}.*\{context\}, \{task\}"):
        schema_conversation(SCHEMA_PROMPT.model_copy(update={"user": "{row}"}), GENERATION, "")


def test_the_fingerprint_of_a_generated_module_covers_exactly_its_sources() -> None:
    llm = parameters(llm={"model_name": "m"}).llm
    same = generated_from(SCHEMA_PROMPT, GENERATION, "cards", llm)
    # A version, blank lines around the task, and the temperature do not change it.
    assert same == generated_from(
        SCHEMA_PROMPT.model_copy(update={"version": "2"}),
        GENERATION,
        " cards\n",
        parameters(llm={"model_name": "m", "temperature": 0.1}).llm,
    )
    others = [
        generated_from(SCHEMA_PROMPT.model_copy(update={"system": "Write."}), GENERATION, "cards", llm),
        generated_from(SCHEMA_PROMPT, GENERATION.model_copy(update={"user": "{context}"}), "cards", llm),
        generated_from(SCHEMA_PROMPT, GENERATION, "letters", llm),
        generated_from(SCHEMA_PROMPT, GENERATION, "cards", parameters(llm={"model_name": "n"}).llm),
    ]
    assert len({same, *others}) == 5
