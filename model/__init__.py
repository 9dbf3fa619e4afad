"""A-QCF-Net: network, preprocessing, inference and measurement. Knows no web, queue, SQL or DICOM."""
