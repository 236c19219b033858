"""From the name of a target to the verdicts of all laws."""
