"""From a schema file to models. What is run is our own rendering of what was read, never the file itself."""

from __future__ import annotations

import sys
import types
from pathlib import Path

from pydantic import BaseModel, PydanticUserError
from pydantic_core import SchemaError as CoreSchemaError

from llmbatch_assets.adapters.yaml_files import read_text
from llmbatch_assets.domain.canonical import sha1_text
from llmbatch_assets.domain.schema import SchemaModels
from llmbatch_assets.domain.schema_source import parse_schema, render_schema
from llmbatch_assets.errors import SchemaError


def load_schema(path: Path, shown_as: str) -> SchemaModels:
    """The models of a schema file. Raises ``SchemaError`` naming file, line and construct."""
    rendering = render_schema(parse_schema(read_text(path, SchemaError, "llm_schema.py_path"), shown_as))
    # The name says what is in it: pydantic looks forward references up in the module of that name.
    name = f"llmbatch_schema_{sha1_text(rendering)[:12]}"
    module = sys.modules.get(name) or _import(rendering, name, shown_as)
    models = {key: getattr(module, key) for key in module.__all__}
    return SchemaModels(models, shown_as)


def _import(rendering: str, name: str, shown_as: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(rendering, f"<{shown_as}>", "exec"), module.__dict__)  # noqa: S102  # our own rendering
        for key in module.__all__:
            model = getattr(module, key)
            assert issubclass(model, BaseModel)
            model.model_rebuild()
    except (PydanticUserError, CoreSchemaError, TypeError, NameError, ValueError) as broken:
        del sys.modules[name]
        raise SchemaError(f"{shown_as}: pydantic refuses this schema: {broken}") from None
    return module
