"""Reads secrets from files: NAME_FILE names the file that holds the value of NAME.

So Docker and Kubernetes mount them. Only settings that are secrets have a NAME_FILE.
"""

from __future__ import annotations

import os
import typing
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from core.errors import ConfigurationError

SUFFIX = "_FILE"
MAX_BYTES = 65_536
"""A secret is shorter; a larger file is another one."""


def is_secret(field: FieldInfo) -> bool:
    """Whether the values of a field must not be shown."""
    return _mentions_secret(field.annotation)


def _mentions_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(map(_mentions_secret, typing.get_args(annotation)))


class SecretFiles(PydanticBaseSettingsSource):
    """The settings whose NAME_FILE is set, in the environment or in `.env`.

    Raises ConfigurationError for both NAME and NAME_FILE, and for a file that cannot be read.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of the field's file; None where no file is named."""
        if not is_secret(field):
            return None, field_name, False
        variable = field_name.upper()
        path = self._variables.get(variable + SUFFIX, "").strip()
        if not path:
            return None, field_name, False
        if self._variables.get(variable):
            raise ConfigurationError(f"both {variable} and {variable}{SUFFIX} are set; unset one")
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            text = data.decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigurationError(
                f"{variable}{SUFFIX}: {path} cannot be read: {reason}"
            ) from None
        if len(data) > MAX_BYTES:
            raise ConfigurationError(f"{variable}{SUFFIX}: {path} has more than {MAX_BYTES} bytes")
        return text.rstrip("\r\n"), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Field name -> value."""
        env_file = self.config.get("env_file")
        dotenv = dotenv_values(env_file) if isinstance(env_file, str | Path) else {}
        self._variables = {
            name.upper(): value
            for name, value in {**dotenv, **os.environ}.items()
            if value is not None
        }
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                values[name] = value
        return values
