"""Errors of the science layer: one root, a stable ``code`` on each.

A message names the offending value and the way out; it never carries patient data.
"""


class AqcfError(Exception):
    """Root of every error this project raises on purpose.

    ``code`` is stable and machine readable; clients may switch on it.
    """

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InputError(AqcfError):
    """The caller's input cannot be used; nothing is wrong with the program."""

    code = "invalid_input"


class InputTooLargeError(InputError):
    """The input declares or needs more than the limits allow."""

    code = "input_too_large"


class GeometryError(InputError):
    """The image grid does not describe a volume in space."""

    code = "invalid_geometry"


class ModelFolderError(AqcfError):
    """A model folder is missing, incomplete, or differs from its manifest."""

    code = "invalid_model"


class ConfigError(AqcfError):
    """A configuration value is impossible."""

    code = "invalid_config"


class BackendError(AqcfError):
    """An inference engine is missing or failed."""

    code = "backend_failed"


class OutOfMemoryError(BackendError):
    """The engine ran out of memory; a smaller batch may pass."""

    code = "out_of_memory"


class BackendBrokenError(BackendError):
    """The device's context is broken: nothing runs on it any more in this process."""

    code = "engine_broken"


class ExportParityError(AqcfError):
    """An exported graph does not reproduce the network; nothing was written."""

    code = "export_parity"


class CancelledError(AqcfError):
    """The caller's progress callback asked to stop."""

    code = "cancelled"
