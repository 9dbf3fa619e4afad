"""DICOM in and out: which series, its voxels, and a mask back as DICOM-SEG and TID 1500 SR.

Knows pydicom and highdicom; no web, no SQL. Nothing here logs header values: pydicom and highdicom
would (in warnings about malformed values), so their loggers are silenced once, here.
"""

import logging

import highdicom
import pydicom

LIBRARIES = (pydicom.__name__, highdicom.__name__)

for _name in LIBRARIES:
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
