"""S3 through the MinIO SDK: content store, registry, embedded server."""
