"""From a schema file to models. What is run is our own rendering of what was read, never the file itself."""

from __future__ import annotations

import ast
import builtins
import logging
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from llmbatch_assets.adapters.files.yaml_files import read_text
from llmbatch_assets.domain.canonical import canonical_json, sha1_text
from llmbatch_assets.domain.schema.contract import SchemaModels
from llmbatch_assets.domain.schema.grammar import parse_schema
from llmbatch_assets.domain.schema.offline_answer import made_up
from llmbatch_assets.domain.schema.spec import MODULES, render_schema
from llmbatch_assets.domain.schema.type_grammar import PLAIN_TYPES
from llmbatch_assets.errors import SchemaError

# Deep enough for each field once. Models that hold each other in unions take pydantic longer by a factor per level.
SAMPLE_DEPTH = 2

log = logging.getLogger(__name__)

# Another thread must not find a module that is not finished.
_IMPORTING = threading.RLock()


def load_schema(path: Path, shown_as: str, *, trust: bool = False) -> SchemaModels:
    """The models of a schema file. Raises ``SchemaError`` naming file, line and construct.

    Only where the user says ``trust`` is the file itself run.
    """
    source = read_text(path, SchemaError, "llm_schema.py_path")
    if trust:
        return _load_trusted(source, shown_as)
    return load_source(source, shown_as)


def load_source(source: str, shown_as: str) -> SchemaModels:
    """The models that a source text describes; the text is read, and its rendering run. Raises ``SchemaError``."""
    rendering = render_schema(parse_schema(source, shown_as))
    # The name says what is in it: pydantic looks forward references up in the module of that name.
    name = f"llmbatch_schema_{sha1_text(rendering)[:12]}"
    with _IMPORTING:
        module = sys.modules.get(name) or _import(rendering, name, shown_as)
    return SchemaModels(_models(module), shown_as)


def _import(rendering: str, name: str, shown_as: str) -> types.ModuleType:
    module = types.ModuleType(name)
    # Nothing but what a rendering needs: should a text ever be evaluated as a type, it could do nothing.
    vars(module)["__builtins__"] = _BUILTINS
    sys.modules[name] = module
    try:
        with warnings.catch_warnings():
            # A field named like a method of BaseModel hides it, which harms nobody here.
            warnings.filterwarnings("ignore", message=r"(?s).*(shadows an attribute|protected namespace)")
            exec(compile(rendering, f"<{shown_as}>", "exec"), vars(module))  # noqa: S102  # our own rendering
            for model in _models(module).values():
                model.model_rebuild(_types_namespace=vars(module))
                _try_out(model)
    except Exception as broken:  # noqa: BLE001  # whatever pydantic raises, it does not take the schema
        del sys.modules[name]
        reason = str(broken).strip().splitlines() or [type(broken).__name__]
        too_much = isinstance(broken, OverflowError | RecursionError)
        refused = "this schema asks too much" if too_much else "pydantic refuses this schema"
        raise SchemaError(f"{shown_as}: {refused}: {reason[0]}") from None
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_known(name: str, *rest: Any) -> types.ModuleType:
    if name not in (*MODULES, "__future__"):
        raise ImportError(f"{name} is not part of a schema")
    return builtins.__import__(name, *rest)


_BUILTINS = {
    "__build_class__": builtins.__build_class__,
    "__import__": _import_known,
    **{name: getattr(builtins, name) for name in PLAIN_TYPES},
}


def _try_out(model: type[BaseModel]) -> None:
    """Raise ``TypeError`` for limits that the type of a field does not know, ``ValueError`` for unfit defaults.

    Pydantic tells of neither before the first answer is validated.
    """
    schema = model.model_json_schema()
    given = {
        field.validation_alias or field.alias or name: to_jsonable_python(field.default)
        for name, field in model.model_fields.items()
        if field.default is not PydanticUndefined
    }
    sample = made_up(schema | schema.get("$defs", {}).get(model.__name__, {}), model.__name__, SAMPLE_DEPTH)
    try:
        model.model_validate_json(canonical_json(sample), strict=True)
        model.model_validate_json(canonical_json({**sample, **given}), strict=True)
    except ValidationError as unfit:
        for error in unfit.errors(include_url=False, include_context=False):
            if error["loc"] and error["loc"][0] in given and error["input"] == given[error["loc"][0]]:
                raise ValueError(f"the default of {model.__name__}.{error['loc'][0]}: {error['msg']}") from None


def _load_trusted(source: str, shown_as: str) -> SchemaModels:
    log.warning("%s is imported as it is, since llm_schema.trust is true", shown_as)
    try:
        # Without comments and line breaks, which change nothing that the code does.
        code_sha = sha1_text(ast.unparse(ast.parse(source)))
        with _IMPORTING:
            models = _models(_import_trusted(source, f"llmbatch_trusted_schema_{code_sha[:12]}", shown_as))
    except Exception as broken:
        raise SchemaError(f"{shown_as}: importing it fails with {type(broken).__name__}: {broken}") from broken
    if not models:
        raise SchemaError(f"{shown_as}: no class derives from BaseModel; write at least LLMOutput")
    return SchemaModels(models, shown_as, code_sha)


def _import_trusted(source: str, name: str, shown_as: str) -> types.ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    module = sys.modules[name] = types.ModuleType(name)
    try:
        exec(compile(source, shown_as, "exec"), module.__dict__)  # noqa: S102  # the user trusts it
        for model in _models(module).values():
            # What it refers to, and what JSON cannot say, is told now and not at the first answer.
            model.model_rebuild()
            model.model_json_schema()
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _models(module: types.ModuleType) -> dict[str, type[BaseModel]]:
    """The models that a module defines, in its order."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    }
