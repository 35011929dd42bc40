"""The workflows: one file per flow; they wire tasks and compute nothing."""
