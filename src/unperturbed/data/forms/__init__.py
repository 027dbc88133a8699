"""Forms of data: a file a form, found by its `NAME: Form = Form(...)`."""
