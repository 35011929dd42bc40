"""Privacy that can be stated: an accountant for (ε, δ) and each site's own ledger of what it has spent."""
