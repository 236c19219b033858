"""The laws: hypothesis properties that any implementation can be held to. Nothing imports from here."""
