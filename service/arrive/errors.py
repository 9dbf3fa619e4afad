"""Why an instance is not taken, or a series not segmented. No message holds a UID."""

from ..errors import UploadError


class InstanceError(UploadError):
    """One instance of many is refused; the others are not touched."""

    code = "invalid_instance"


class MismatchedInstanceError(InstanceError):
    """The data set is not what the request says it is: another SOP class, instance or study."""

    code = "mismatched_instance"
