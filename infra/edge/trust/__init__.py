"""What a fleet's devices believe: signed envelopes, the documents in them, and the order in which they are accepted."""
