"""The contract of the outputs: Pydantic models, their JSON schema, and strict validation against them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from llmbatch_assets.domain.canonical import canonical_json, readable_json, sha1_named
from llmbatch_assets.errors import AnswerError, SchemaError

OUTPUT_MODEL = "LLMOutput"
JUDGE_MODEL = "JudgeResult"
MAX_ERRORS_TOLD = 12


@dataclass(frozen=True)
class Contract:
    """One model of the schema module: what an answer must be, said once for prompt, provider and validation."""

    name: str
    model: type[BaseModel]
    json_schema: dict[str, Any]

    @classmethod
    def of(cls, model: type[BaseModel]) -> Contract:
        return cls(model.__name__, model, model.model_json_schema())

    @property
    def text(self) -> str:
        """The JSON schema as a prompt shows it."""
        return readable_json(self.json_schema)

    @property
    def sha(self) -> str:
        """Fingerprint of the model and all that it refers to."""
        return sha1_named(json_schema=self.json_schema)

    def validate(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer as the model understands it, JSON-ready. Raises ``AnswerError``; nothing is coerced."""
        try:
            kept = self.model.model_validate_json(canonical_json(answer), strict=True).model_dump(
                mode="json", by_alias=True
            )
            canonical_json(kept)
        except ValidationError as problem:
            raise AnswerError("schema_mismatch", self._feedback(answer, problem)) from None
        except ValueError:
            # 1e999, or an integer that no float holds.
            raise AnswerError("schema_mismatch", "A number of the answer is too large.") from None
        return kept

    def _feedback(self, answer: dict[str, Any], problem: ValidationError) -> str:
        if set(answer) == {self.name} and isinstance(answer[self.name], dict):
            return f"The answer is wrapped in {{{json.dumps(self.name)}: ...}}. Give the inner object itself."
        errors = problem.errors(include_url=False, include_context=False)
        told = [f"- {_where(error['loc'])}: {error['msg']}" for error in errors[:MAX_ERRORS_TOLD]]
        more = [f"- and {len(errors) - len(told)} more"] if len(errors) > len(told) else []
        return "\n".join(["The answer does not match the schema:", *told, *more])


def _where(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "the object"


@dataclass(frozen=True)
class SchemaModels:
    """All models of a schema module, by name."""

    models: dict[str, type[BaseModel]]
    path: str

    def output(self) -> Contract:
        """The contract of an output: ``LLMOutput``, or the only model that can be meant."""
        candidates = [name for name in self.models if name != JUDGE_MODEL]
        if OUTPUT_MODEL in self.models:
            return Contract.of(self.models[OUTPUT_MODEL])
        if len(candidates) == 1:
            return Contract.of(self.models[candidates[0]])
        raise SchemaError(f"{self.path}: no class is named {OUTPUT_MODEL} (found: {', '.join(candidates) or 'none'})")

    def judge(self) -> Contract:
        """The contract of a verdict."""
        if JUDGE_MODEL not in self.models:
            raise SchemaError(
                f"{self.path}: the judge is enabled, so a class {JUDGE_MODEL} is needed with "
                'reasons: list[str], score: int, verdict: Literal["PASS", "FAIL"]'
            )
        return Contract.of(self.models[JUDGE_MODEL])

    def text(self) -> str:
        """The schema as text: the JSON that Pipeline 1 writes."""
        models = {name: Contract.of(model).json_schema for name, model in self.models.items()}
        return readable_json({"title": "LLM Schema", "type": "object", "models": models}) + "\n"
