"""Find the columns that prompts name, and mistakes in their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from llmbatch_assets.domain.configuration.parameters import Parameters
from llmbatch_assets.domain.items.work import WorkItem
from llmbatch_assets.domain.placeholders import (
    GENERATION_NAMES,
    ITEM_NAMES,
    JUDGE_NAMES,
    ColumnNames,
    ambiguity,
    column_placeholder,
    columns_named,
    unknown_placeholders,
)
from llmbatch_assets.domain.prompt import PromptTemplate
from llmbatch_assets.errors import PromptError


def prompts_with_names(
    generation: PromptTemplate, judge: PromptTemplate | None
) -> Iterator[tuple[PromptTemplate, frozenset[str]]]:
    """Yield each prompt with its built-in placeholders."""
    yield generation, GENERATION_NAMES
    if judge:
        yield judge, JUDGE_NAMES


def names_columns(generation: PromptTemplate, judge: PromptTemplate | None) -> bool:
    """Return whether a prompt has placeholders that are not built in."""
    return any(prompt.column_placeholders(built_in) for prompt, built_in in prompts_with_names(generation, judge))


def columns_of_prompts(
    generation: PromptTemplate, judge: PromptTemplate | None, columns: Sequence[str], parameters: Parameters
) -> list[str]:
    """Return the columns that the prompts name, in table order. Ignores mistakes; ``check_prompts`` reports them."""
    names = {
        name for prompt, built_in in prompts_with_names(generation, judge) for name in prompt.placeholders - built_in
    }
    if not names:
        return []
    known = ColumnNames(columns)
    found = [known.named(name) for name in names]
    named = {one for several in found if len(several) == 1 for one in several} - set(_unavailable(columns, parameters))
    return [column for column in columns if column in named]


def _unavailable(columns: Iterable[str], parameters: Parameters) -> dict[str, str]:
    """Return the columns that prompts may not name, with the reason."""
    grouping, excluded = parameters.grouping, set(parameters.context.columns.exclude)
    reasons = {}
    for column in columns:
        if column in excluded:
            reasons[column] = (
                "is excluded by context.columns.exclude, so the model must not see it; remove it from the prompt or from "
                "context.columns.exclude"
            )
        elif grouping.active_mode.makes_one_item_per_group and column != grouping.column:
            reasons[column] = (
                f"names a column, but grouping.mode is {grouping.active_mode.name}: an item is a group of rows, each with its "
                f"own value. Use {{context}} for the rows, or {{{column_placeholder(grouping.column, JUDGE_NAMES)}}} for "
                "the group key"
            )
    return reasons


def check_prompts(
    generation: PromptTemplate, judge: PromptTemplate | None, columns: Sequence[str], parameters: Parameters
) -> None:
    """Raise ``PromptError`` with all mistakes that ``prompt_mistakes`` finds."""
    if found := prompt_mistakes(generation, judge, columns, parameters):
        raise PromptError("\n".join(found))


def prompt_mistakes(
    generation: PromptTemplate, judge: PromptTemplate | None, columns: Sequence[str], parameters: Parameters
) -> list[str]:
    """Return the mistakes in the placeholders of the prompts, given the columns of the table."""
    found = [
        f"{prompt.path}: {mistake}"
        for prompt, built_in in prompts_with_names(generation, judge)
        for mistake in _mistakes(prompt, built_in, columns, parameters)
    ]
    return [*found, *_item_mistakes(generation, parameters)]


def _mistakes(
    prompt: PromptTemplate, built_in: frozenset[str], columns: Sequence[str], parameters: Parameters
) -> Iterator[str]:
    unavailable, known, unknown = _unavailable(columns, parameters), ColumnNames(columns), []
    for name in prompt.column_placeholders(built_in):
        several = known.named(name)
        if len(several) > 1:
            yield ambiguity(name, several)
        elif not several:
            unknown.append(name)
        elif several[0] in unavailable:
            yield f"{{{name}}} {unavailable[several[0]]}"
    if unknown:
        usable = [column for column in columns if column not in unavailable]
        yield unknown_placeholders(unknown, built_in, usable)


def _item_mistakes(generation: PromptTemplate, parameters: Parameters) -> Iterator[str]:
    """Yield a mistake if the prompt shows the item only by placeholders that are always empty."""
    mode = parameters.grouping.active_mode
    used = generation.placeholders & ITEM_NAMES
    if used == {"group_context"} and not mode.shares_group_context and not generation.placeholders - GENERATION_NAMES:
        instead = "{context}" if mode.makes_one_item_per_group else "{row}"
        yield (
            f"{generation.path}: {{group_context}} is always empty {parameters.grouping.in_words}, and the prompt shows "
            f"nothing else of the item, so every call would be the same; use {instead}"
        )


def column_values(names: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the column placeholders that these columns have."""
    known = ColumnNames(columns)
    found = {name: known.named(name) for name in names}
    return {name: columns[several[0]] for name, several in found.items() if several}


def items_without_values(generation: PromptTemplate, items: Iterable[WorkItem]) -> list[WorkItem]:
    """Return the items whose columns in the prompt are all empty, if the prompt shows items only by columns."""
    names = generation.column_placeholders(GENERATION_NAMES)
    if not names or generation.placeholders & ITEM_NAMES:
        return []
    return [item for item in items if item.columns and not any(column_values(names, item.columns).values())]


def missing_columns(generation: PromptTemplate, judge: PromptTemplate | None, items: Collection[WorkItem]) -> list[str]:
    """Return the placeholders for which the items hold no value."""
    missing: dict[str, None] = {}
    for prompt, built_in in prompts_with_names(generation, judge):
        names = prompt.column_placeholders(built_in)
        for columns in {tuple(item.columns) for item in items} if names else ():
            missing |= dict.fromkeys(name for name in names if not columns_named(name, columns))
    return list(missing)
