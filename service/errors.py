"""Every error the service raises on purpose, below the science layer's root.

``InputError`` and its kin mean that the caller's input cannot be used (a 4xx over HTTP, exit 2 on
the command line). ``code`` is stable. No message carries patient data: no header value, no name of
an uploaded file, no UID.
"""

from model.errors import AqcfError, InputError, InputTooLargeError


class UploadError(InputError):
    """What was uploaded cannot be opened as images."""

    code = "invalid_upload"


class EmptyUploadError(UploadError):
    code = "empty_upload"


class UnsupportedMediaError(UploadError):
    """Neither DICOM, nor a zip of DICOM, nor NIfTI."""

    code = "unsupported_media"


class ArchiveError(UploadError):
    """``corrupt_archive``, ``unsafe_archive``, ``nested_archive`` or ``encrypted_archive``."""

    code = "corrupt_archive"


class UploadTooLargeError(InputTooLargeError):
    """``upload_too_large``, ``archive_too_large`` or ``too_many_files``."""

    code = "upload_too_large"


class TooLargeForDeviceError(InputTooLargeError):
    """The job would need more memory than any worker's device has."""

    code = "too_large_for_device"


class UnknownModelError(InputError):
    """No model of this id, or none for this modality, is installed."""

    code = "unknown_model"


class PhantomsOnlyError(InputError):
    """The acceptance model is asked for images that are no phantom."""

    code = "phantoms_only"


class UnknownProfileError(InputError):
    code = "unknown_profile"


class UnknownDestinationError(InputError):
    """The site file has no destination of this name."""

    code = "unknown_destination"


class IdempotencyKeyReusedError(InputError):
    """The same Idempotency-Key came with another input or other settings."""

    code = "idempotency_key_reused"


class ServiceError(AqcfError):
    """Root of what is no fault of the input."""

    code = "service_error"


class NotFoundError(ServiceError):
    """``job_not_found`` or ``artifact_not_found``."""

    code = "not_found"


class ConflictError(ServiceError):
    """The job's state does not allow this: ``already_finished`` or ``not_finished``."""

    code = "conflict"


class BusyError(ServiceError):
    """The queue is full; try again after ``retry_after_s`` seconds."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageFullError(ServiceError):
    """No room for another upload; running jobs still finish."""

    code = "storage_full"


class UnauthorizedError(ServiceError):
    """No key, or none that is known."""

    code = "unauthorized"


class ForbiddenError(ServiceError):
    """The key is known, its scopes do not allow this."""

    code = "forbidden"


class IssuerUnavailableError(ServiceError):
    """The issuer of bearer tokens does not answer, so that nobody can be told from anybody."""

    code = "issuer_unavailable"


class ModelUnavailableError(ServiceError):
    """No model is installed where the settings point."""

    code = "model_unavailable"


class StoreUnavailableError(ServiceError):
    """The artifact store does not answer; nothing is lost, try again."""

    code = "store_unavailable"


class DamagedArtifactError(ServiceError):
    """A stored file is not what was stored."""

    code = "artifact_damaged"


class LedgerUnavailableError(ServiceError):
    """The database does not answer; what was accepted is safe, try again."""

    code = "ledger_unavailable"


class TimeLimitError(ServiceError):
    """The job ran for too long and was stopped."""

    code = "time_limit"


class WorkerBrokenError(ServiceError):
    """The device of this process is broken: it can do no job until it is started again."""

    code = "worker_broken"


class StateLockedError(ServiceError):
    """Another process serves from this state folder."""

    code = "state_locked"


class RoleSettingsError(ServiceError):
    """A role of a deployment lacks a setting that it cannot do without."""

    code = "role_settings"


class TracingUnavailableError(ServiceError):
    """Traces are asked for, and the extra ``trace`` is not installed."""

    code = "tracing_unavailable"


class UnsafeAddressError(ServiceError):
    """A public address without API keys."""

    code = "unsafe_address"


class UndeliverableError(ServiceError):
    """Results that will not reach a destination later either: ``nothing_to_deliver``, or
    ``unknown_destination`` when the site file names it no more."""

    code = "nothing_to_deliver"


class NotConfirmedError(ServiceError):
    """A destination does not show, or does not yet report, what it took."""

    code = "not_confirmed"
