"""What stands around a sandbox: resources, identity, and the OCI configuration that says it all."""
