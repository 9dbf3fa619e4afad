"""A-QCF-Net: network, preprocessing, inference, measurement. No web, queue, SQL or DICOM here."""
