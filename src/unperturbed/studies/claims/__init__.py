"""One study per file: `NAME: Study = Study("name", "claim", ...)`."""
