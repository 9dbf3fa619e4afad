"""A-QCF-Net as a service: a CT or MR series in, a DICOM-SEG out."""
