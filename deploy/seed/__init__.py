"""Sample data for the stores of docker-compose.yml."""
