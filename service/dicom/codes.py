"""Coded concepts of the results (PS3.16), as highdicom wants them."""

from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept

from model.spec import Code, Label

ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")
LIVER = CodedConcept("10200004", "SCT", "Liver")
ABDOMEN = CodedConcept("818981001", "SCT", "Abdomen")
NEOPLASM = CodedConcept("108369006", "SCT", "Neoplasm")
LESION = CodedConcept("52988006", "SCT", "Lesion")
VOLUME = CodedConcept("118565006", "SCT", "Volume")
LONG_AXIS = CodedConcept("103339001", "SCT", "Long Axis")
ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
MEAN = CodedConcept("373098007", "SCT", "Mean")
CUBIC_MILLIMETRE = CodedConcept("mm3", "UCUM", "cubic millimeter")
MILLIMETRE = CodedConcept("mm", "UCUM", "millimeter")
HOUNSFIELD = CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit")
IMAGING_REPORT = CodedConcept("126000", "DCM", "Imaging Measurement Report")
ONCOLOGY_REPORT = CodedConcept("126001", "DCM", "Oncology Measurement Report")
CT_PROCEDURE = CodedConcept("77477000", "SCT", "Computed Tomography imaging")
MR_PROCEDURE = CodedConcept("113091000", "SCT", "Magnetic resonance imaging")


def concept(code: Code) -> CodedConcept:
    """A manifest's code as a coded concept."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def colour(label: Label) -> CIELabColor:
    """The label's recommended colour, from DICOM's scaled CIELab integers (PS3.3 C.10.7.1.1)."""
    lightness, a, b = label.cielab
    return CIELabColor(lightness / 65535 * 100, a / 65535 * 255 - 128, b / 65535 * 255 - 128)


def as_rgb(label: Label) -> tuple[int, int, int]:
    """The same colour for objects that have no CIELab."""
    red, green, blue = colour(label).to_rgb(clip=True)
    return red, green, blue
