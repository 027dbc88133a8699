"""Forms of data, one file per form, found by its `NAME: Form = Form(...)`."""
