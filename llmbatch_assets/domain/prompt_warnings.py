"""Warnings about prompts that probably do not send what their author intends.

The most common mistake is a placeholder in the form of another tool, which is sent to the model unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from llmbatch_assets.domain.configuration.input_blocks import Context
from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.items.prompt_columns import items_without_values, prompts_with_names
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.placeholders import (
    EMPTY,
    GENERATION_NAMES,
    GROUP_PLACEHOLDERS,
    ITEM_NAMES,
    JUDGE_NAMES,
    KV_BLOCK,
    PLACEHOLDERS,
    ColumnNames,
    braced,
    column_placeholder,
)
from llmbatch_assets.domain.prompt import PromptTemplate, fill_placeholders, live_tokens
from llmbatch_assets.domain.text import counted

# Returns the placeholder that a text in other marks seems to stand for, without braces; None if there is none.
MeantBy = Callable[[str], str | None]

MAX_ROWS = 5
_MASK = "\0"
_LONGEST = 120
_BRACES = re.compile(r"\{{1,2}\s*([^{}\n\0]{1,100}?)\s*\}{1,2}")
_OPENED = re.compile(r'\{\s*("[^"\n\0]{1,100}"|\w{1,100}(?!\w))(?!\s*:)')
_CLOSED = re.compile(r'("[^"\n\0]{1,100}"|\w{1,100})\s*\}\Z')
_OTHER_MARKS = (
    re.compile(r"%\(([^()\n\0]{1,100})\)[sdrf]"),
    # Full-width braces, as East Asian input methods write them.
    re.compile(r"[{\uff5b]\s*([^{}\uff5b\uff5d\n\0]{1,100}?)\s*[}\uff5d]"),
)
_DOLLAR = re.compile(r"\$\{(\w+)\}")
_TAG = re.compile(r"<\s*([^<>/\n]{1,100}?)\s*>")
_STATEMENT = re.compile(r"\{%-?\s*\w+[^{}\n]{0,60}?%\}|\{\{\s*#\w+[^{}\n]{0,60}\}\}")
# {row.text}, {row['text']}, {row|upper}, {row!r} and {row:>10} begin with a placeholder.
_PATH = re.compile(r"(\w+)\s*(?:[.\[|!].*|:[<>=^].*)")


def prompt_warnings(
    generation: PromptTemplate, judge: PromptTemplate | None, parameters: Parameters, columns: Sequence[str]
) -> list[str]:
    """Return all warnings about the prompts of a batch, given the columns of its table."""
    found = [*item_warnings(generation, parameters), *schema_warnings(generation, parameters)]
    found += template_warnings(parameters.context, columns)
    for prompt, built_in in prompts_with_names(generation, judge):
        found += [
            *placeholder_warnings(prompt, parameters),
            *lookalike_warnings(prompt, built_in, columns),
            *_shadow_warnings(prompt, built_in, columns),
        ]
    return found


def item_warnings(generation: PromptTemplate, parameters: Parameters) -> Iterator[str]:
    """Yield a warning if the generation prompt does not show what distinguishes its items."""
    used = generation.placeholders & ITEM_NAMES
    if generation.column_placeholders(GENERATION_NAMES) or used & {"context", "row"}:
        return
    if used and not parameters.grouping.active_mode.shares_group_context:
        # A mistake, not only a warning: ``check_prompts`` reports it.
        return
    seen = "the model sees the group but not the row" if used else "every call asks the same question"
    yield f"{generation.path} does not use {{context}}, {{row}} or a column, so {seen}"


def empty_prompt_warnings(generation: PromptTemplate, items: Iterable[WorkItem]) -> Iterator[str]:
    """Yield a warning if the columns that a prompt shows are empty for some of the items."""
    empty = items_without_values(generation, items)
    if empty:
        rows = ", ".join(str((item.row_index or 0) + 1) for item in empty[:MAX_ROWS]) + (
            ", ..." if empty[MAX_ROWS:] else ""
        )
        names = braced(generation.column_placeholders(GENERATION_NAMES))
        yield f"no value for {names} in {counted(len(empty), 'row')} ({rows}): the model gets no input"


def placeholder_warnings(prompt: PromptTemplate, parameters: Parameters) -> Iterator[str]:
    """Yield the placeholders of a prompt that are always empty with these settings."""
    used, mode = prompt.placeholders, parameters.grouping.active_mode
    for one in PLACEHOLDERS:
        if one.name in used & ITEM_NAMES and one.value(mode) == EMPTY:
            yield f"{prompt.path}: {{{one.name}}} is always empty {parameters.grouping.in_words}"
    if "judge_schema" in used and not parameters.prompts.judge.enabled:
        yield f"{prompt.path}: {{judge_schema}} is always empty because prompts.judge.enabled is false"


def schema_warnings(generation: PromptTemplate, parameters: Parameters) -> Iterator[str]:
    """Yield a warning if the model may never see the schema."""
    shows = {"llm_schema", "llm_schema_txt"} & generation.placeholders
    if not shows and parameters.llm.structured_output in ("auto", "json_schema"):
        yield f"{generation.path} does not use {{llm_schema}}: the model sees the schema only if the server passes it on"


def _shadow_warnings(prompt: PromptTemplate, built_in: Collection[str], columns: Sequence[str]) -> Iterator[str]:
    for name in sorted(prompt.placeholders.intersection(built_in, columns)):
        yield f'{prompt.path}: {{{name}}} is not the column {name!r}; write {{"{name}"}} for the column'


def template_warnings(context: Context, columns: Sequence[str]) -> Iterator[str]:
    """Yield the texts in the templates of rows and groups that look like placeholders but are shown unchanged."""
    for key in ("row_template", "group_header_template", "group_footer_template"):
        is_of_rows = key == "row_template"
        built_in, known = ({KV_BLOCK}, columns) if is_of_rows else (GROUP_PLACEHOLDERS, ())
        for sentence in dict.fromkeys(_lookalikes(getattr(context, key), _meant_by(built_in, known))):
            yield f"context.{key}: {sentence}"


def lookalike_warnings(prompt: PromptTemplate, built_in: Collection[str], columns: Sequence[str]) -> list[str]:
    """Return a warning for each text that looks like a placeholder but is sent unchanged.

    Only names of placeholders and columns count, so JSON examples and their doubled braces cause no warning.
    """
    meant_by = _meant_by(built_in, columns)
    texts = [text for _, text in prompt.texts()]
    found = [one for text in texts for one in _lookalikes(text, meant_by)]
    for text in texts:
        found += _dollars(text, built_in) if "${" in text else ()
        found += _tags(text, meant_by, prompt.placeholders, texts) if "<" in text else ()
    return [f"{prompt.path}: {sentence}" for sentence in dict.fromkeys(found)]


def _meant_by(built_in: Collection[str], columns: Sequence[str]) -> MeantBy:
    known, names = ColumnNames(columns), set(columns)

    def meant_by(text: str) -> str | None:
        text = text.strip()
        plain = text.strip("\"'")
        if plain in built_in:
            return plain
        found = known.named(plain) if plain and not plain.startswith('"') else []
        if found:
            return column_placeholder(found[0], built_in)
        path = _PATH.fullmatch(text)
        if not path:
            return None
        last = re.findall(r"\w+", text)[-1]
        return (meant_by(last) if last in names else None) or meant_by(path.group(1))

    return meant_by


def _lookalikes(text: str, meant_by: MeantBy) -> Iterator[str]:
    masked = _masked(text)
    for written, inner in (*_in_braces(masked), *_half_in_braces(masked), *_in_other_marks(masked)):
        if meant := meant_by(inner):
            sent = fill_placeholders(written, {})
            yield _sentence(written, "unchanged" if sent == written else f"as `{sent}`", meant)
    for found in _STATEMENT.finditer(masked):
        yield f"`{text[slice(*found.span())]}` is sent unchanged: prompts support placeholders, but not statements"


def _in_braces(masked: str) -> Iterator[tuple[str, str]]:
    yield from ((found.group(), found.group(1)) for found in _BRACES.finditer(masked))


def _half_in_braces(masked: str) -> Iterator[tuple[str, str]]:
    for place in _unmatched(masked):
        before = _CLOSED.search(masked[max(0, place - _LONGEST) : place + 1])
        if found := _OPENED.match(masked, place) or before:
            yield found.group(), found.group(1)


def _in_other_marks(masked: str) -> Iterator[tuple[str, str]]:
    for pattern in _OTHER_MARKS:
        for found in pattern.finditer(masked):
            if found.group()[0] + found.group()[-1] != "{}":
                yield found.group(), found.group(1)


def _sentence(written: str, sent: str, meant: str) -> str:
    return f"`{written}` is sent {sent}; write {{{meant}}} to insert the value"


def _masked(text: str) -> str:
    """Return the text with its placeholders blanked out; positions stay the same."""
    for found in live_tokens(text):
        if found.group(1):
            text = text[: found.start()] + _MASK * len(found.group()) + text[found.end() :]
    return text


def _unmatched(text: str) -> list[int]:
    """Return the positions of unmatched braces."""
    opened, lone = [], []
    for found in re.finditer(r"[{}]", text):
        if found.group() == "{":
            opened.append(found.start())
        elif opened:
            opened.pop()
        else:
            lone.append(found.start())
    return sorted([*lone, *opened])


def _dollars(text: str, built_in: Collection[str]) -> Iterator[str]:
    # A column after a dollar sign may be a price.
    for found in _DOLLAR.finditer(text):
        if found.group(1) in built_in:
            yield f"the dollar sign of `{found.group()}` is sent, too; write {{{found.group(1)}}}"


def _tags(text: str, meant_by: MeantBy, used: Collection[str], texts: Sequence[str]) -> Iterator[str]:
    """Yield tags that look like placeholders: unclosed, and not used elsewhere in the prompt as markup."""
    for found in _TAG.finditer(text):
        meant, closing = meant_by(found.group(1)), f"</{found.group(1)}>"
        is_shown = meant in used or (meant not in JUDGE_NAMES and {"context", "row"} & set(used))
        if meant and not is_shown and not any(closing in one for one in texts):
            yield _sentence(found.group(), "unchanged", meant)
