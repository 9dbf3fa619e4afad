"""The experiment: unpaired CT and MR cohorts in, a model folder out. Never imports the service."""
