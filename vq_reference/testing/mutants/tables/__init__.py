"""The faults as data, one file for each part of a layer."""
