"""Files: JSON, images, and configurations as plain values."""
