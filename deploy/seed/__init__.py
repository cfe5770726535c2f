"""What fills the stores of docker-compose.yml, so that there is something to search at once."""
