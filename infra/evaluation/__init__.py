"""Every number of the report, from clip scores and calibrations."""
