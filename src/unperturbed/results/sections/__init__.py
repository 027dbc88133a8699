"""The sections of a report: functions from stored runs to a section."""
