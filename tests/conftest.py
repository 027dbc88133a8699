import hypothesis

hypothesis.settings.register_profile("unperturbed", deadline=None, database=None)
hypothesis.settings.load_profile("unperturbed")
