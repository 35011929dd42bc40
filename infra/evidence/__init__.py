"""Evidence for a model on recordings it never met: grouped folds, seeds, arms, and the documents made from their scores."""
