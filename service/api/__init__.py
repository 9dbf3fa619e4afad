"""HTTP /v1 and the page: routes over the use cases. No engine, no SQL, no DICOM library."""
