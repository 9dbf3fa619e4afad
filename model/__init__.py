"""A-QCF-Net: network, preprocessing, inference, measurement. No web, queue, SQL or DICOM here."""

import os
import sys

# ONNX Runtime and OpenVINO report their use to Microsoft and to Google as soon as they are
# imported. Nothing leaves a hospital unasked, so both are told before that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
