"""Load the models of a schema file. Our own rendering of the file is executed, never the file itself."""

from __future__ import annotations

import ast
import builtins
import logging
import sys
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from llmbatch_assets.adapters.files.yaml_files import read_text
from llmbatch_assets.domain.canonical import canonical_json, sha1_text
from llmbatch_assets.domain.schema.contract import SchemaModels
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.offline_answer import offline_answer
from llmbatch_assets.domain.schema.spec import MODULES, render_schema
from llmbatch_assets.domain.schema.type_grammar import PLAIN_TYPES
from llmbatch_assets.errors import SchemaError

# Deep enough to reach each field once. Each level multiplies the time that mutually recursive models take to validate.
SAMPLE_DEPTH = 2

log = logging.getLogger(__name__)

# Another thread must not find an unfinished module.
_IMPORTING = threading.RLock()


def load_schema(path: Path, shown_as: str, *, trust: bool = False) -> SchemaModels:
    """Return the models of a schema file. Raises ``SchemaError`` with file, line and construct.

    The file itself is executed only with ``trust``.
    """
    source = read_text(path, SchemaError, "llm_schema.py_path")
    return _load_trusted(source, shown_as) if trust else load_source(source, shown_as)


def load_source(source: str, shown_as: str) -> SchemaModels:
    """Return the models of a source text by executing its rendering. Raises ``SchemaError``."""
    rendering = render_schema(parse_schema(source, shown_as))
    # The name identifies the content, since pydantic looks up forward references in the module of that name.
    name = f"llmbatch_schema_{sha1_text(rendering)[:12]}"
    with _IMPORTING:
        module = sys.modules.get(name) or _import(rendering, name, shown_as)
    return SchemaModels(_models(module), shown_as)


def _execute(
    source: str, name: str, file_name: str, check: Callable[[type[BaseModel]], object], **names: object
) -> types.ModuleType:
    """Execute a module that starts with ``names``, and check its models. It stays registered only if both succeed."""
    module = sys.modules[name] = types.ModuleType(name)
    try:
        vars(module).update(names)
        exec(compile(source, file_name, "exec"), vars(module))  # noqa: S102  # our own rendering, or trusted by the user
        for model in _models(module).values():
            model.model_rebuild(_types_namespace=vars(module))
            check(model)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(rendering: str, name: str, shown_as: str) -> types.ModuleType:
    try:
        with warnings.catch_warnings():
            # A field may shadow a method of BaseModel; that is harmless here.
            warnings.filterwarnings("ignore", message=r"(?s).*(shadows an attribute|protected namespace)")
            # Only the built-ins that a rendering needs: if a string is ever evaluated as a type, it can do no harm.
            return _execute(rendering, name, f"<{shown_as}>", _check_fields, __builtins__=_BUILTINS)
    except Exception as broken:  # noqa: BLE001  # whatever pydantic raises, it rejects the schema
        reason = str(broken).strip().splitlines() or [type(broken).__name__]
        is_too_large = isinstance(broken, OverflowError | RecursionError)
        refused = "this schema is too large" if is_too_large else "pydantic refuses this schema"
        raise SchemaError(f"{shown_as}: {refused}: {reason[0]}") from None


def _import_known(name: str, *rest: Any) -> types.ModuleType:
    if name not in (*MODULES, "__future__"):
        raise ImportError(f"{name} is not allowed in a schema")
    return builtins.__import__(name, *rest)


_BUILTINS = {
    "__build_class__": builtins.__build_class__,
    "__import__": _import_known,
    **{name: getattr(builtins, name) for name in PLAIN_TYPES},
}


def _check_fields(model: type[BaseModel]) -> None:
    """Raise ``TypeError`` for limits that a field's type does not support, and ``ValueError`` for invalid defaults.

    Pydantic reports neither before it validates the first answer.
    """
    schema = model.model_json_schema()
    given = {
        field.validation_alias or field.alias or name: to_jsonable_python(field.default)
        for name, field in model.model_fields.items()
        if field.default is not PydanticUndefined
    }
    sample = offline_answer(schema | schema.get("$defs", {}).get(model.__name__, {}), model.__name__, SAMPLE_DEPTH)
    try:
        model.model_validate_json(canonical_json(sample), strict=True)
        model.model_validate_json(canonical_json({**sample, **given}), strict=True)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_context=False):
            if error["loc"] and error["loc"][0] in given and error["input"] == given[error["loc"][0]]:
                raise ValueError(f"the default of {model.__name__}.{error['loc'][0]}: {error['msg']}") from None


def _load_trusted(source: str, shown_as: str) -> SchemaModels:
    try:
        # Without comments and line breaks, which do not change behaviour.
        code_sha = sha1_text(ast.unparse(ast.parse(source)))
        name = f"llmbatch_trusted_schema_{code_sha[:12]}"
        with _IMPORTING:
            # The JSON Schema reveals types without one now rather than at the first answer.
            module = sys.modules.get(name) or _execute_trusted(source, name, shown_as)
        models = _models(module)
    except Exception as broken:
        raise SchemaError(f"{shown_as}: importing it failed with {type(broken).__name__}: {broken}") from broken
    if not models:
        raise SchemaError(f"{shown_as}: no class derives from BaseModel; write at least LLMOutput")
    return SchemaModels(models, shown_as, code_sha)


def _execute_trusted(source: str, name: str, shown_as: str) -> types.ModuleType:
    # Here, since a run loads the module many times but executes it once.
    log.warning("%s is imported and executed as is because llm_schema.trust is true", shown_as)
    return _execute(source, name, shown_as, lambda model: model.model_json_schema())


def _models(module: types.ModuleType) -> dict[str, type[BaseModel]]:
    """Return the models that a module defines, in order."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    }
