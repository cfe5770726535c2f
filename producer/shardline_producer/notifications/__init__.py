"""Notifications of ended attempts: the outbox and the webhook."""
