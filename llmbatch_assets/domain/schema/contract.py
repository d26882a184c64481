"""Contracts: Pydantic models, their JSON Schema, and strict validation of answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json, to_jsonable_python

from llmbatch_assets.domain.answer import verdict_field
from llmbatch_assets.domain.canonical import canonical_json, readable_json, sha1_named
from llmbatch_assets.domain.schema.json_schema import JsonSchema, can_be, inline_definitions, requires_all, strict_form
from llmbatch_assets.domain.text import cut
from llmbatch_assets.errors import AnswerError, FailureCause, SchemaError

OUTPUT_MODEL = "LLMOutput"
JUDGE_MODEL = "JudgeResult"
MAX_ERRORS_LISTED = 12
# Pydantic can only return all errors at once, which takes several seconds for a million.
MAX_ERRORS_READ = 10_000
# Maximum length of a place in a message, since it can contain a key of the answer and becomes part of the next prompt.
MAX_PLACE_CHARS = 200
MAX_ERROR_CHARS = 500


@dataclass(frozen=True)
class Contract:
    """One model of the schema module. Prompt, provider and validation all use the same contract."""

    name: str
    model: type[BaseModel]
    json_schema: dict[str, Any]
    # Fingerprint of validation code beyond the JSON Schema; only a trusted module has such code.
    code_sha: str = ""

    @classmethod
    def of(cls, model: type[BaseModel], code_sha: str = "") -> Contract:
        return cls(model.__name__, model, inline_definitions(model.model_json_schema()), code_sha)

    @cached_property
    def text(self) -> str:
        """The JSON Schema as inserted into prompts."""
        return readable_json(self.json_schema)

    @cached_property
    def sha(self) -> str:
        """Fingerprint of the model and everything it refers to."""
        code = {"code": self.code_sha} if self.code_sha else {}
        return sha1_named(json_schema=self.json_schema, **code)

    @cached_property
    def strict_form(self) -> JsonSchema | None:
        """The JSON Schema in OpenAI's strict form, or None if it has no such form."""
        return strict_form(self.json_schema)

    @cached_property
    def requires_all(self) -> bool:
        return requires_all(self.json_schema)

    @cached_property
    def _has_sets(self) -> bool:
        return '"uniqueItems":true' in canonical_json(self.json_schema)

    def validate(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer as parsed by the model, ready for JSON, without coercion. Raises ``AnswerError``."""
        try:
            parsed = self.model.model_validate_json(canonical_json(answer), strict=True)
            if self._has_sets:
                kept = to_jsonable_python(_ordered(parsed.model_dump(by_alias=True, warnings=False)))
            else:
                kept = parsed.model_dump(mode="json", by_alias=True, warnings=False)
            _check_finite(kept)
        except ValidationError as problem:
            raise self._mismatch(answer, problem) from None
        except ValueError:
            # 1e999, or an integer too large for a float.
            raise AnswerError(FailureCause.SCHEMA_MISMATCH, "A number in the answer is too large.") from None
        except RecursionError:
            raise AnswerError(FailureCause.SCHEMA_MISMATCH, "The answer is nested too deeply.") from None
        return dict(kept)

    def _mismatch(self, answer: dict[str, Any], problem: ValidationError) -> AnswerError:
        if set(answer) == {self.name} and isinstance(answer[self.name], dict):
            message = f"The answer is wrapped in {{{json.dumps(self.name)}: ...}}. Return only the inner object."
            return AnswerError(FailureCause.WRAPPED, message)
        return AnswerError(FailureCause.SCHEMA_MISMATCH, self._feedback(problem), _error_types(problem))

    def _feedback(self, problem: ValidationError) -> str:
        if problem.error_count() > MAX_ERRORS_READ:
            return f"The answer does not match the schema in {problem.error_count():,} places."
        errors = problem.errors(include_url=False, include_context=False, include_input=False)
        lines = [_error_line(error["loc"], error["msg"]) for error in errors[:MAX_ERRORS_LISTED]]
        more = [f"- and {len(errors) - len(lines)} more"] if len(errors) > len(lines) else []
        return "\n".join(["The answer does not match the schema:", *lines, *more])


def _error_line(path: Iterable[int | str], message: str) -> str:
    return f"- {_place(path)}: {cut(message, MAX_ERROR_CHARS)[0]}"


def _error_types(problem: ValidationError) -> str:
    """Name the errors in Pydantic's terms: ``extra_forbidden (note), missing (answer)``."""
    if problem.error_count() > MAX_ERRORS_READ:
        return f"{problem.error_count():,} errors"
    errors = problem.errors(include_url=False, include_context=False, include_input=False)
    named = [f"{error['type']} ({_place(error['loc'])})" for error in errors[:MAX_ERRORS_LISTED]]
    more = [f"and {len(errors) - len(named)} more"] if len(errors) > len(named) else []
    return ", ".join([*named, *more])


def _place(path: Iterable[int | str]) -> str:
    return cut(".".join(map(str, path)), MAX_PLACE_CHARS)[0] or "the object"


def _check_finite(kept: Any) -> None:
    """Raise ``ValueError`` if a number is not finite. The slow check runs only after a fast text search."""
    written = to_json(kept)
    if b"Infinity" in written or b"NaN" in written:
        canonical_json(kept)


def _ordered(value: Any) -> Any:
    """Replace sets with sorted lists, since the order of a set differs between processes."""
    if isinstance(value, dict):
        return {key: _ordered(part) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(_ordered, value), key=lambda part: canonical_json(to_jsonable_python(part)))
    return [_ordered(part) for part in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class SchemaModels:
    """The models of a schema module, by name. ``code_sha`` is set only if the module is trusted, so its code runs."""

    models: dict[str, type[BaseModel]]
    path: str
    code_sha: str = ""

    def output(self) -> Contract:
        """Return the contract of an output: ``LLMOutput``, or the only possible model."""
        candidates = [OUTPUT_MODEL] if OUTPUT_MODEL in self.models else self._candidates()
        if len(candidates) == 1:
            contract = self._contract(candidates[0])
            if contract.json_schema.get("properties") == {} and not contract.json_schema.get("additionalProperties"):
                raise SchemaError(
                    f"{self.path}: {candidates[0]} has no fields, so every answer would be {{}}; add fields such as "
                    "`answer: str`"
                )
            return contract
        raise SchemaError(
            f"{self.path}: no class is named {OUTPUT_MODEL} (found: {', '.join(candidates) or 'none'}); "
            "give the output class this name"
        )

    def _contract(self, name: str) -> Contract:
        return Contract.of(self.models[name], self.code_sha)

    def _candidates(self) -> list[str]:
        """Return the models that no other model contains or extends."""
        parts: set[str] = set()
        for name, model in self.models.items():
            parts |= set(model.model_json_schema().get("$defs", {})) - {name}
            parts |= {base.__name__ for base in model.__mro__[1:]}
        return [name for name in self.models if name not in parts and name != JUDGE_MODEL]

    def judge(self) -> Contract:
        """Return the contract of a verdict. Raises ``SchemaError`` if the judge could not use it."""
        needed = 'reasons: list[str], score: int, verdict: Literal["PASS", "FAIL"]'
        if JUDGE_MODEL not in self.models:
            raise SchemaError(f"{self.path}: the judge is enabled, so a class {JUDGE_MODEL} is needed, with {needed}")
        contract = self._contract(JUDGE_MODEL)
        properties = contract.json_schema.get("properties", {})
        read = ("reasons", "score", verdict_field(properties))
        missing = [name for name in read if name not in properties]
        if missing:
            raise SchemaError(f"{self.path}: {JUDGE_MODEL} lacks {', '.join(missing)}; it needs {needed}")
        for name in read:
            if not self._fits(name, properties[name], contract.json_schema):
                raise SchemaError(f"{self.path}: {JUDGE_MODEL} has the wrong type for {name}; it needs {needed}")
        return contract

    def _fits(self, name: str, schema: dict[str, Any], root: dict[str, Any]) -> bool:
        """Return whether a field of a verdict can hold every value that the judge step reads from it."""
        if name == "reasons":
            return can_be(schema, [], root) or can_be(schema, "", root)
        needed: tuple[Any, ...] = {"score": (0,), "verdict": ("PASS", "FAIL")}.get(name, (True, False))
        return all(can_be(schema, value, root) for value in needed)

    def text(self) -> str:
        """Return the content of ``llm_schema.txt``."""
        models = {name: self._contract(name).json_schema for name in self.models}
        return readable_json({"title": "LLM Schema", "type": "object", "models": models}) + "\n"
