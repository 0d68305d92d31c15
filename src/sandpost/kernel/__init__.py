"""What several parts ask of the kernel."""
