"""Networks of users: their identity, and the checks before anything is measured."""
