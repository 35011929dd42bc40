"""Great Expectations expectations about recordings, infants and sites; importing a module registers its classes."""
