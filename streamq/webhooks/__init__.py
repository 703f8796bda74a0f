"""Events to whoever wants them over HTTP: signed, in batches, again until they are taken. Never in the mail's way."""
