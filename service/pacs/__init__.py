"""How the service speaks to other DICOM systems: associations, DICOMweb, sending, asking back."""
