"""What runs Shardline: images, and the services of development."""
