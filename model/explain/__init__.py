"""What a network looks at: 3-D Grad-CAM and Grad-CAM++, feature maps, and how well a saliency map
meets a mask (section 4.3). Needs torch; inference does not come here.
"""

from .agreement import band_coverage, boundary_band, pointing_hit, saliency_iou
from .cam import METHODS, Method, cam, channel_weights, normalised, tap
from .features import feature_maps, layers
from .volume import Target, explain_volume, predicted_region

__all__ = [
    "METHODS",
    "Method",
    "Target",
    "band_coverage",
    "boundary_band",
    "cam",
    "channel_weights",
    "explain_volume",
    "feature_maps",
    "layers",
    "normalised",
    "pointing_hit",
    "predicted_region",
    "saliency_iou",
    "tap",
]
